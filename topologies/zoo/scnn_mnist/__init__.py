"""A spiking convolutional network for MNIST; see README.md."""
