"""Networks from elsewhere: NIR files, and modules of snnTorch, SpikingJelly and Norse.

Each importer gives an ordinary network (topologies.model), which `write` saves as an ordinary
network file. docs/importing.md says what becomes of what.
"""
