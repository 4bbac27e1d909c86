"""The authoritative store: schema, queries and compare-and-swap verbs, one module per noun.

Rules of the room: SQL lives in `sql/` and every query has a name; a verb runs inside the caller's transaction (`Tx`)
and adds its log entries to the same transaction (outbox); time comes in with the transaction; a write that replaces
something says what it expects.
"""
