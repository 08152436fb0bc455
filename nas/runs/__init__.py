"""Run folders: file names, checkpoints, the record of each epoch; and the free memory."""
