import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.topologies.hostile import NOT_READABLE, make
from tests.unit.topologies.importers.graphs import affine, graph, lif, ports
from topologies.importers import nir_child, nir_file
from topologies.importers.extras import MissingLibrary, library
from topologies.importers.nir_file import NirFileError, read_nir, write_nir
from topologies.importers.nir_graph import open_graph

pytestmark = pytest.mark.torch


def test_graph_that_was_written_is_read_back(tmp_path: Path) -> None:
    inner = graph({**ports(2, 2), "lif": lif(2), "w": affine(np.eye(2))}, "input lif w lif output")
    document = graph({**ports(2, 2), "rnn": inner}, "input rnn output")
    write_nir(tmp_path / "a.nir", document)
    found, wanted = open_graph(read_nir(tmp_path / "a.nir")), open_graph(document)
    assert set(found.nodes) == set(wanted.nodes)
    assert set(found.edges) == set(wanted.edges)
    assert np.array_equal(found.nodes["rnn.w"].array("weight"), np.eye(2))


def test_file_that_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nir").write_text("hello")
    with pytest.raises(NirFileError, match=r"a.nir cannot be read as a NIR file \(HDF5\)"):
        read_nir(tmp_path / "a.nir")


def test_file_without_a_graph_is_refused(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(NirFileError, match="holds other, no 'node'"):
        read_nir(tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_to_other_places_are_refused(kind: str, tmp_path: Path) -> None:
    import h5py

    (tmp_path / "secret.h5").touch()
    link = h5py.SoftLink("/node") if kind == "soft" else h5py.ExternalLink("secret.h5", "/x")
    with h5py.File(tmp_path / "a.nir", "w") as file:
        file.create_group("node")["weight"] = link
    with pytest.raises(NirFileError, match="/node/weight is a link elsewhere"):
        read_nir(tmp_path / "a.nir")


def test_groups_that_hold_themselves_are_refused(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.nir", "w") as file:
        node = file.create_group("node")
        node["nodes"] = node
    with pytest.raises(NirFileError, match="nested deeper than 64"):
        read_nir(tmp_path / "a.nir")


def test_library_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(MissingLibrary, match=r"no_such is needed to fly.*install .*'\.\[nir\]'"):
        library("no_such", "nir", "fly")


def write_node(tmp_path: Path, make: Callable[[Any, Any], None]) -> Path:
    """A file whose group `node` is made by `make(h5py, group)`."""
    import h5py

    with h5py.File(tmp_path / "a.nir", "w") as file:
        make(h5py, file.create_group("node"))
    return tmp_path / "a.nir"


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_root_that_is_a_link_elsewhere_is_refused(kind: str, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file.create_group("x")["type"] = "NIRGraph"
    link = h5py.SoftLink("/x") if kind == "soft" else h5py.ExternalLink("secret.h5", "/x")
    with h5py.File(tmp_path / "a.nir", "w") as file:
        file.create_group("x")
        file["node"] = link
    with pytest.raises(NirFileError, match="/node is a link elsewhere"):
        read_nir(tmp_path / "a.nir")


def test_data_in_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * 16)

    def external(h5py: Any, node: Any) -> None:
        place = (str(tmp_path / "secret"), 0, 16)
        node.create_dataset("weight", (4,), "f4", external=[place])

    def virtual(h5py: Any, node: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "x", (4,))
        node.create_virtual_dataset("weight", layout)

    for kind in (external, virtual):
        with pytest.raises(NirFileError, match="/node/weight lies in other files"):
            read_nir(write_node(tmp_path, kind))


def test_data_that_take_much_more_than_the_file_holds_are_refused(tmp_path: Path) -> None:
    def never_written(h5py: Any, node: Any) -> None:
        node.create_dataset("weight", (2**40,), "f4", chunks=(1024,))

    with pytest.raises(NirFileError, match="would take 4,398,046,511,104 bytes"):
        read_nir(write_node(tmp_path, never_written))


def test_data_that_many_names_refer_to_count_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import h5py

    def often(h5py: Any, node: Any) -> None:
        node.create_dataset("a0", data=np.zeros(2**18, np.float32), compression="gzip")
        for n in range(1, 12):
            node[f"a{n}"] = node["a0"]

    path = write_node(tmp_path, often)
    assert len(read_nir(path)) == 12
    monkeypatch.setattr(nir_child, "_MOST_BYTES", 10 * 2**20)
    with pytest.raises(NirFileError, match="10,485,760 in all"):
        nir_child.NirReader(h5py, path).read(path.read_bytes())


def test_texts_that_refer_to_one_long_text_are_refused(tmp_path: Path) -> None:
    def texts(h5py: Any, node: Any) -> None:
        node.create_dataset("long", data="x" * 1_000_000)
        for n in range(70):
            node[f"a{n}"] = node["long"]

    with pytest.raises(NirFileError, match="67,108,864 bytes of text"):
        read_nir(write_node(tmp_path, texts))


def test_groups_that_hold_themselves_twice_are_refused(tmp_path: Path) -> None:
    def twice(h5py: Any, node: Any) -> None:
        inner = node
        for _ in range(40):
            group = inner.create_group("a")
            inner["b"] = group
            inner = group

    with pytest.raises(NirFileError, match="more than 20,000 groups"):
        read_nir(write_node(tmp_path, twice))


def test_values_that_are_neither_numbers_nor_texts_are_refused(tmp_path: Path) -> None:
    def pairs(h5py: Any, node: Any) -> None:
        node["a"] = np.zeros(2, [("x", "f4")])

    def references(h5py: Any, node: Any) -> None:
        node.create_dataset("a", data=node.ref, dtype=h5py.ref_dtype)

    def ragged(h5py: Any, node: Any) -> None:
        node.create_dataset("a", (2,), h5py.vlen_dtype(np.int32))

    def named(h5py: Any, node: Any) -> None:
        node["a"] = np.dtype("f4")

    for kind in (pairs, references, ragged, named):
        with pytest.raises(NirFileError, match=r"/node/a (has dtype|is a named type)"):
            read_nir(write_node(tmp_path, kind))


@pytest.mark.parametrize("kind", NOT_READABLE)
def test_what_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(NirFileError, match=NOT_READABLE[kind]):
        read_nir(make(kind, tmp_path, "a.nir"))


def test_graph_is_not_written_where_no_file_can_be(tmp_path: Path) -> None:
    document = graph({**ports(2, 2), "w": affine(np.eye(2))}, "input w output")
    for kind in ("a folder", "no parent", "a pipe"):
        folder = tmp_path / kind
        folder.mkdir()
        with pytest.raises(NirFileError, match="cannot be written"):
            write_nir(make(kind, folder, "a.nir"), document)


def test_file_that_hdf5_never_gets_done_with_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A length in the heap of texts that leads HDF5 in a circle, found by flipping bits."""
    path = tmp_path / "a.nir"
    write_nir(path, graph({**ports(2, 2), "w": affine(np.eye(2))}, "input w output"))
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL") + 16
    data[heap + 8 : heap + 16] = (2**64 - 16).to_bytes(8, "little")  # the first object's size
    path.write_bytes(data)
    monkeypatch.setattr(nir_file, "_DEADLINE_S", 3.0)
    with pytest.raises(NirFileError, match="HDF5"):
        read_nir(path)


def test_process_of_hdf5_that_dies_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nir"
    write_nir(path, graph({**ports(2, 2), "w": affine(np.eye(2))}, "input w output"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(NirFileError, match="ends with code 1"):
        read_nir(path)


def test_damaged_numbers_are_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    """Without texts, whose damage HDF5 may follow for ever: those need a process each."""
    import h5py

    def numbers(h5py: Any, node: Any) -> None:
        node["a"] = np.arange(12.0)
        node.create_dataset("b", data=np.zeros((9, 9)), chunks=(3, 3), compression="gzip")

    whole = write_node(tmp_path, numbers).read_bytes()
    rng = np.random.default_rng(6)
    used = np.flatnonzero(np.frombuffer(whole, np.uint8))
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.choice(used, 3):
            data[at] ^= 1 << int(rng.integers(0, 8))
        try:
            nir_child.NirReader(h5py, tmp_path).read(bytes(data))
        except NirFileError:
            continue
