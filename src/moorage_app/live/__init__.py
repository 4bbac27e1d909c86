"""The live side of an app: sockets, sessions, shared state, people, notices."""
