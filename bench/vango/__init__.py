"""The bench of Vango apps: two hundred people on the Vango board, moved by the platform and by a plain swap."""
