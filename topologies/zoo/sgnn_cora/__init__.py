"""A spiking graph network on the citations of Cora; see README.md."""
