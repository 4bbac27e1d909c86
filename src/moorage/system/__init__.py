"""The only door to the uncontrolled world: clock, randomness, files, settings, processes, log."""
