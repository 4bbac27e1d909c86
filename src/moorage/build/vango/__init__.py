"""Vango apps: from a Go source to the artifact that a host can run and judge.

Rules: what the files say is checked before anything is compiled; the user's own Go and its configuration compile; the
framework's own tool is asked where it can be built, and never decides alone. No migration is run.
"""
