"""Networks as data: describe, validate, compile. Pure but for `topologies.loader`."""
