"""How healthy a search is, and what its alpha is worth."""
