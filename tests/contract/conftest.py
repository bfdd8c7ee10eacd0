"""What is collected here."""

from importlib.util import find_spec

# Deselected by its marker in `make test`, but its imports need the extra `monitor` all the same.
collect_ignore = [] if find_spec("faust") else ["test_monitor.py"]
