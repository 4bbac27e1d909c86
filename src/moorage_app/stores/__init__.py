"""Where sessions and shared state live: one port, an in-memory store and a Valkey store behind it."""
