"""A spiking residual network that adds spikes; see README.md."""
