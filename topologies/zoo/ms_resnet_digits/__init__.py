"""A spiking residual network with membrane shortcuts; see README.md."""
