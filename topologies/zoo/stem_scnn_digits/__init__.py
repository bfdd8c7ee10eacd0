"""A spiking convolutional network with the shared stem; see README.md."""
