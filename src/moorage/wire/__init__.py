"""What crosses a process boundary: API messages, log entries, snapshots, desired state and reports.

Rules of the room: every message is versioned by its route (`/v1`), frozen and strict (unknown keys and wrong types
are refused). Times are integer milliseconds since the Unix epoch and end in `_ms`.
"""
