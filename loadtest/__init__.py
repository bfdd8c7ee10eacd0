"""Load and measurement: the demo, the pipeline benchmark, locust."""
