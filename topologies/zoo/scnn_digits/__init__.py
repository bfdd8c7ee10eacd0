"""A spiking convolutional network for handwritten digits; see README.md."""
