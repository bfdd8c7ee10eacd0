"""The second release reads both formats; the product's own reads its own and names the other."""

import subprocess
import sys

import pytest

from loadtest.faults.releases import decode_either, encode_next, open_either, seal_next
from router.wire import (
    Batch,
    Frame,
    StreamId,
    UnknownVersion,
    WireError,
    decode_frame,
    encode_frame,
)
from workers.snapshot import VERSION, SnapshotCorruptError, open_sealed, seal

_BATCH = Batch("a" * 32, StreamId(1, 2), "s", ("n",), 0, 3, 4, 8, payload=b"\x01\x02")
_FRAME = Frame("b" * 32, 0, [_BATCH])
_STATE = [{"in": 5}, "name", [1, 2], b"\x00\x01"]


def test_the_next_release_reads_both_wire_formats() -> None:
    assert decode_either(encode_next(_FRAME)) == decode_either(encode_frame(_FRAME)) == _FRAME


def test_this_release_names_the_wire_version_that_it_does_not_read() -> None:
    with pytest.raises(UnknownVersion, match="version 2"):
        decode_frame(encode_next(_FRAME))


@pytest.mark.parametrize("at", range(0, 60, 7))
def test_a_damaged_frame_of_the_next_version_is_refused(at: int) -> None:
    data = bytearray(encode_next(_FRAME))
    data[at] ^= 0x40
    with pytest.raises(WireError):
        decode_either(bytes(data))


def test_the_next_release_reads_both_snapshot_formats() -> None:
    assert open_either(seal_next(_STATE), "x") == open_either(seal(_STATE), "x") == _STATE


def test_this_release_names_the_snapshot_version_that_it_does_not_read() -> None:
    with pytest.raises(SnapshotCorruptError, match=f"has snapshot version {VERSION + 1}"):
        open_sealed(seal_next(_STATE), "x")


@pytest.mark.parametrize(
    ("release", "frames", "snapshots"), [("next-reads", 1, VERSION), ("next", 2, VERSION + 1)]
)
def test_an_installed_release_is_what_workers_use(
    release: str, frames: int, snapshots: int
) -> None:
    program = f"""
from loadtest.faults.releases import install
install({release!r})
from router.wire import Batch, Frame, StreamId
from workers import host, task, tenancy, tenant
batch = Batch("a" * 32, StreamId(1, 2), "s", ("n",), 0, 0, 0, 1)
(frame,) = tenant.encode_frames(Frame("b" * 32, 0, [batch]))
print(frame[1], task.seal(0)[0])
print(host.NEWEST, tenancy.VERSION)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == [
        f"{frames} {snapshots}", f"{VERSION + 1} {snapshots}"
    ]  # fmt: skip
