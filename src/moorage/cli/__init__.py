"""The command line: parse, ask the control API, print. It decides nothing about deployments, routes or sessions.

Rules of the room: stdout carries answers (with `--json` exactly one JSON document, or JSON lines that end in one),
stderr carries errors and questions. Modules that are imported at start import nothing heavy: pydantic, httpx and Rich
come in inside the verbs. Text from the server never contains markup and is stripped of control characters.
"""
