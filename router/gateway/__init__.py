"""The HTTP interface: Open Inference Protocol for requests, and streams of events."""
