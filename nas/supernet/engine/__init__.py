"""The fast engine: a node of the supernet in few, large calls. `nas.supernet.network.node` is its oracle."""
