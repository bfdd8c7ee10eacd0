"""A spiking transformer with spiking self-attention; see README.md."""
