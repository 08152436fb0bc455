"""Checks of data sets and their reports: `nas-data check`."""
