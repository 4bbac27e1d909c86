"""Conformance runs: a real platform, a fixture app, the framework's own tool, and checks of our own, as one report.

Rules of this room: everything goes through the command line, the public API and the edge, as users and visitors do. A
check says what was really seen; what the platform does not have is said to be absent, never counted as passed.
"""
