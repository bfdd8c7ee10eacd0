"""A spiking VGG for handwritten digits; see README.md."""
