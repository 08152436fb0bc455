"""The folder of a run and what stands in it: checkpoints, settings, the record of epochs, pictures."""
