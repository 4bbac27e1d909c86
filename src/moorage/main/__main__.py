"""`python -m moorage.main`: the same as the command `moorage`."""

from moorage.main.entry import run

run()
