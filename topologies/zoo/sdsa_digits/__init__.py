"""A spiking transformer with spike-driven attention; see README.md."""
