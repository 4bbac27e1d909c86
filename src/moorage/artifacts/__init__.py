"""The artifact store: content-addressed, written once, verified file by file before anything runs from it."""
