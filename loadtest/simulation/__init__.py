"""A world in which the product's own protocol code runs under a virtual clock (docs/protocol.md).

`world` is the world: log, store, workers, publishers, faults. `oracle` says, slowly and plainly,
what must come out, `checker` compares every appended batch with it at once, `numbers` is the
arithmetic that stands in for neurons, `shapes` the networks, `runner` runs seeds.
"""
