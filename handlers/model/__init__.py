"""The model: checkpoints, labels, the network, and what runs it."""
