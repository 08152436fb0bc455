"""One training step and what surrounds it: losses, optimisers, devices, processes, interruption."""
