import subprocess
import sys


def test_child_of_a_dead_parent_ends_before_it_begins() -> None:
    command = [sys.executable, "-m", "workers.alone", "0" * 32 + "/0/0@0"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
