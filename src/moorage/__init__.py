"""Moorage: a self-hosted platform for stateful web apps."""
