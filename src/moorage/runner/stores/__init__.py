"""The session stores of a host: one Valkey per environment."""
