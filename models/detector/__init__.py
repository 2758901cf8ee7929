"""The oriented-box detector: network, targets, losses, decoding, weights."""
