"""Composition roots, one per process: settings in, objects wired, supervisor started. Nobody imports this room."""
