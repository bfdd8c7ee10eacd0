"""Leases and checkpoints: pure calls, the Lua scripts they run, and who executes them."""
