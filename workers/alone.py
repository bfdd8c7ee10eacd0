"""A worker for one suspicious task: `python -m workers.alone TASK`, started by another worker.

It lives as long as the pipe on its standard input. That is watched before anything heavy is
imported: a machine that is so busy that workers die must not fill up with their children.
"""

import os
import sys
import threading

__all__ = ["main"]


def main() -> None:
    """Serve the task until it is given back, or until the parent is gone."""
    threading.Thread(target=_die_with_parent, name="parent", daemon=True).start()
    from workers.__main__ import serve

    serve(only=sys.argv[1])


def _die_with_parent() -> None:
    if not os.read(sys.stdin.fileno(), 1):
        os._exit(1)


if __name__ == "__main__":
    main()
