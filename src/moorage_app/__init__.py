"""The Moorage SDK."""
