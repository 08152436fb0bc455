"""What `nas-data check` finds in a data set, and how it says so."""
