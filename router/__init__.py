"""What carries spikes: wire format, bus, store, gateway, deployment, command line."""
