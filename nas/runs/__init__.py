"""A run folder: its files and their names, checkpoints, the record of each epoch, memory that is left."""
