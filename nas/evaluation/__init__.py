"""Measuring a network: metrics, inference over whole images, cost, memory."""
