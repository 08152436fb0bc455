"""The relaxed network of a search space: nodes, trellis, architecture parameters."""
