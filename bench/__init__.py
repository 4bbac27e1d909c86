"""Benches: figures come from here, each as a ratio against a peer or with its spread."""
