"""The typed HTTP client of the control API: the one way in for edges, runners, the build worker and the CLI.

Rules of the room: an answer is a wire message, a refusal is `Refused` with the server's problem, no answer is
`Unavailable`. Retrying is the caller's decision; reads and agents' reports are safe to repeat.
"""
