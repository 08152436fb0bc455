"""With NAS_EXTENSIONS=FILE.py in the environment, the contract suites are those of a user's entries, too."""

from search_spaces.extensions import load_extensions

load_extensions()
