import json
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from topologies.layers import LAYERS
from topologies.schema import form_faults
from topologies.stages.table import kinds_of


@pytest.fixture
def schema() -> dict[str, Any]:
    text = resources.files("topologies").joinpath("network.schema.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def faults(document: object, schema: dict[str, Any]) -> dict[str, str]:
    return {fault.place: fault.message for fault in form_faults(document, schema)}


def test_schema_is_a_legal_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)


def test_legal_document_has_no_fault(document: dict[str, Any], schema: dict[str, Any]) -> None:
    assert faults(document, schema) == {}


def test_schema_names_every_kind_that_the_compiler_knows(schema: dict[str, Any]) -> None:
    defs = schema["$defs"]
    assert set(defs["layer"]["properties"]["kind"]["enum"]) == set(LAYERS)
    encoders = defs["input"]["properties"]["encoder"]["properties"]["kind"]["enum"]
    assert tuple(encoders) == kinds_of("encoder")
    assert tuple(defs["output"]["properties"]["readout"]["enum"]) == kinds_of("readout")


def test_all_faults_are_reported_each_with_its_place(
    document: dict[str, Any], schema: dict[str, Any]
) -> None:
    document["layers"][0]["stride"] = 0
    document["layers"][2]["taus"] = 2.0
    document["layers"][3].pop("kernel")
    document["output"]["readout"] = "sum"
    document["input"]["shape"] = []
    document["surplus"] = 1
    assert set(faults(document, schema)) == {
        "layers[0] (conv).stride",
        "layers[2] (lif).taus",
        "layers[3] (pool)",
        "output.readout",
        "input.shape",
        "surplus",
    }


def test_each_fault_says_what_was_legal(document: dict[str, Any], schema: dict[str, Any]) -> None:
    document["layers"][0]["stride"] = 0
    document["layers"][2]["taus"] = 2.0
    document["layers"][3].pop("kernel")
    document["layers"][4]["kind"] = "conv3d"
    found = faults(document, schema)
    assert "an integer from 1 on" in found["layers[0] (conv).stride"]
    assert "decay_input" in found["layers[2] (lif).taus"]
    assert found["layers[3] (pool)"] == "'kernel' is missing."
    assert "conv2d, conv1d, linear" in found["layers[4] (flat).kind"]


@pytest.mark.parametrize("wrong", [None, 3, [], "text"])
def test_document_that_is_no_mapping_is_a_fault(wrong: object, schema: dict[str, Any]) -> None:
    assert list(form_faults(wrong, schema))


def test_encoder_refuses_the_parameters_of_another(
    document: dict[str, Any], schema: dict[str, Any]
) -> None:
    document["input"]["encoder"] = {"kind": "events", "grid": 3}
    assert "input.encoder.grid" in faults(document, schema)
