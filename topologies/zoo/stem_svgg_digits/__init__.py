"""A spiking VGG with the shared stem; see README.md."""
