"""Reading and writing whatever a path names."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.topologies.hostile import NOT_READABLE, make
from topologies.files import FileError, check_target, read_file, write_file

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize("kind", NOT_READABLE)
def test_what_is_no_file_is_refused_with_its_name_and_never_waited_for(
    kind: str, tmp_path: Path
) -> None:
    path = make(kind, tmp_path, "net.yaml")
    with pytest.raises(FileError, match=NOT_READABLE[kind]) as caught:
        read_file(path, 1000)
    assert path.name.replace("\0", "\\x00")[:50] in str(caught.value)


def test_file_is_read_up_to_the_byte_that_is_legal(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read_file(tmp_path / "a", 100) == b"x" * 100
    with pytest.raises(FileError, match="it has 100 bytes, legal are 99"):
        read_file(tmp_path / "a", 99)


def test_file_that_says_it_is_empty_and_is_not_is_read_within_bounds() -> None:
    with pytest.raises(FileError, match="more than 10 bytes"):
        read_file(Path("/proc/self/status"), 10)


def test_file_is_written_through_a_link_and_keeps_the_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "real"]


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a socket", "a device", "a link to a pipe"])
def test_nothing_is_written_to_what_is_no_file(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path, "net.yaml")
    for write in (check_target, lambda path: write_file(path, b"x")):
        with pytest.raises(FileError, match="cannot be written"):
            write(path)


@pytest.mark.parametrize(
    "kind",
    ["no parent", "a parent that is a file", "a link to itself", "a long name", "a zero byte"],
)
def test_place_where_no_file_can_be_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be written"):
        write_file(make(kind, tmp_path, "net.yaml"), b"x")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process may have more than 1,000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_disk_that_is_full_leaves_what_was_there_and_no_part(
    full_disk: None, tmp_path: Path
) -> None:
    write_file(tmp_path / "a", b"before")
    with pytest.raises(FileError, match="cannot be written: File too large"):
        write_file(tmp_path / "a", b"x" * 5000)
    assert (tmp_path / "a").read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_new_file_has_the_rights_that_the_process_gives_its_files(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_file(tmp_path / "a", b"x")
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
