"""The nouns of Moorage and the decisions about them: pure values and pure functions.

Rules of the room: no I/O, no clock, no randomness; `now`, ids and seeds are arguments. A decision is total: bad
news is a value, never an exception. Each noun module holds its frozen types, its transition table and its `decide_*`
functions; one glossary term, one home.
"""
