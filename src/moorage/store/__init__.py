"""Placeholder room docstring."""
