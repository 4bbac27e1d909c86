"""The control plane: API, operations and reconcilers over the store. Nothing else changes an owner.

Rules of the room: `operations/` has one module per use case (load, decide, commit), `loops/` the level-triggered
reconcilers, `api/` thin HTTP routes. What edges and runners report is memory (`live`); what must not be lost goes
through the store.
"""
