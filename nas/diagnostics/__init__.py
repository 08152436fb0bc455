"""Diagnostics of a search: its health, and the value of its alpha."""
