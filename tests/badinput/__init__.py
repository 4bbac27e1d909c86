"""Bad input, end to end: each is refused with its stable code, and nothing has changed."""
