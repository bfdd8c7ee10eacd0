"""A spiking transformer for MNIST; see README.md."""
