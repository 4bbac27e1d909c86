"""The HTTP API: thin routes over operations and views; problem details for everything that is refused.

Rules of the room: a route authenticates, validates, calls one use case and encodes its answer. Every mutating route
of the public API takes `Idempotency-Key` and answers from the transaction that made the change.
"""
