"""A recurrent spiking network for spoken vowels; see README.md."""
