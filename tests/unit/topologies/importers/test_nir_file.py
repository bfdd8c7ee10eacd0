from pathlib import Path

import numpy as np
import pytest

from tests.unit.topologies.importers.graphs import affine, graph, lif, ports
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
