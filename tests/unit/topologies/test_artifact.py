import json
import struct

import numpy as np
import pytest
from safetensors.numpy import load

from topologies.artifact import (
    ArtifactError,
    canonical_json,
    digest,
    pack_artifact,
    unpack_artifact,
)
from topologies.stages.base import Array

ARRAYS: dict[str, Array] = {
    "b": np.array([1, -2], np.int64),
    "a": np.array([[1, 2, 3]], np.int8),
    "c": np.array([7], np.int16),
}


def test_content_comes_back_from_its_bytes() -> None:
    meta, arrays = unpack_artifact(pack_artifact({"x": [1, None, True, "ü"]}, ARRAYS))
    assert meta == {"x": [1, None, True, "ü"]}
    assert all(
        np.array_equal(arrays[n], a) and arrays[n].dtype == a.dtype for n, a in ARRAYS.items()
    )


def test_bytes_do_not_depend_on_the_order_of_anything() -> None:
    backwards = dict(reversed(ARRAYS.items()))
    one = pack_artifact({"x": 1, "y": 2}, ARRAYS)
    assert pack_artifact({"y": 2, "x": 1}, backwards) == one


def test_bytes_do_not_depend_on_memory_layout_or_byte_order() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    plain = pack_artifact({}, {"a": array})
    assert pack_artifact({}, {"a": np.asfortranarray(array)}) == plain
    assert pack_artifact({}, {"a": array.astype(">i4")}) == plain


def test_known_content_has_the_known_hash() -> None:
    assert digest(pack_artifact({"x": [1, 2]}, ARRAYS)) == "aba858590f42102a11e8948a65cd0961"


def test_safetensors_library_reads_the_bytes() -> None:
    arrays = load(pack_artifact({"x": 1}, ARRAYS))
    assert all(np.array_equal(arrays[n], a) for n, a in ARRAYS.items())


def test_scalar_array_keeps_its_shape() -> None:
    _, arrays = unpack_artifact(pack_artifact({}, {"a": np.array(5, np.int32)}))
    assert arrays["a"].shape == ()


def test_float_in_json_is_refused() -> None:
    with pytest.raises(ArtifactError, match="float32 bits"):
        canonical_json({"a": [{"b": 0.5}]})  # type: ignore[dict-item]


def test_unknown_dtype_is_refused() -> None:
    with pytest.raises(ArtifactError, match="complex"):
        pack_artifact({}, {"a": np.zeros(1, np.complex128)})


@pytest.mark.parametrize("keep", [0, 7, 8, 40, -1])
def test_truncated_bytes_are_refused(keep: int) -> None:
    with pytest.raises(ArtifactError, match="no artifact"):
        unpack_artifact(pack_artifact({"x": 1}, ARRAYS)[:keep])


def test_header_that_is_no_mapping_is_refused() -> None:
    text = json.dumps([1]).encode()
    with pytest.raises(ArtifactError, match="no artifact"):
        unpack_artifact(struct.pack("<Q", len(text)) + text)
