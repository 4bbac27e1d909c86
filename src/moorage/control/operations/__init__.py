"""Use cases: one module per kind of operation. Each loads, decides with the domain, and commits."""
