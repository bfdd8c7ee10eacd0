"""Equations as text: what is accepted, what is refused, and that neither needs Brian2."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.brian2_networks import LAYERS
from topologies.stages.base import StageError, ValueType
from topologies.stages.brian2 import Brian2
from topologies.stages.brian2_text import Model

LEAKY = LAYERS["leaky"]
ROOT = Path(__file__).parents[4]


def model(**changes: Any) -> Model:
    return Model.parse({**LEAKY, **changes})


@pytest.mark.parametrize("name", LAYERS)
def test_stored_form_reads_back_as_itself(name: str) -> None:
    stage = Brian2.authored(LAYERS[name])
    assert Brian2.build(stage.params(), {}).params() == stage.params()
    assert Model.parse(stage.model.written()) == stage.model


def test_spaces_comments_and_spellings_of_numbers_do_not_change_a_model() -> None:
    same = model(
        equations="\n  dv / dt=( (gain * I-v) ) / tau:1   # leaky\n\n",
        threshold="v>1.0",
        reset="v=0e0",
        parameters={"gain": "2.00", "tau": "5.0 * ms"},
    )
    assert same == model()
    assert model(threshold="v > 1.5") != model()


def test_stored_form_has_every_operation_in_brackets() -> None:
    made = model(equations="dv/dt = -v**2*3/tau - I/tau : 1", reset="v -= 1", method="euler")
    assert str(made.equations[0]) == "dv/dt = ((((-(v**2)) * 3.0) / tau) - (I / tau)) : 1"
    assert made.reset == ("v -= 1.0",)


def test_states_are_those_that_steps_and_resets_change() -> None:
    made = Model.parse(LAYERS["adaptive, refractory, in volts"])
    assert made.states == ("v", "w", "n")


HOSTILE = [
    "__import__('os').system('true') > 1",
    "().__class__.__bases__[0] > 1",
    "v.real > 1",
    "v[0] > 1",
    "(lambda: v)() > 1",
    "[v for v in (1,)] > 1",
    "(v := 2) > 1",
    "f'{v}' > 1",
    "'v' > 1",
    "v > 1 if v else v > 2",
    "exec(v) > 1",
    "eval(v) > 1",
    "print(v) > 1",
    "rand() > 1",
    "exp(*v) > 1",
    "clip(v, a=1) > 1",
    "_numpy > 1",
    "_owner > 1",
    "v > True",
    "v > None",
    "v > 1j",
    "v > ...",
    "v is 1",
    "v in (1, 2)",
    "v @ v > 1",
    "v // 2 > 1",
    "v % 2 > 1",
    "v >> 2 > 1",
    "1 < v < 2",
    "await v > 1",
    "v > 1; import os",
    "v > 1\nimport os",
    "v\x00 > 1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_that_is_more_than_arithmetic_of_declared_names_is_refused(text: str) -> None:
    with pytest.raises(StageError, match="threshold"):
        model(threshold=text)
    with pytest.raises(StageError):
        model(equations=f"dv/dt = int({text})/tau : 1")
    with pytest.raises(StageError, match="reset"):
        model(reset=f"v = int({text})")
    with pytest.raises(StageError, match="tau"):
        model(parameters={"tau": text, "gain": 2})


@pytest.mark.parametrize(
    "line",
    [
        "v = 0; import os",
        "import os",
        "v.x = 1",
        "v, v = 1, 2",
        "v = v = 1",
        "w = 1",
        "I = 1",
        "tau = 1*ms",
        "del v",
        "v **= 2",
        "v == 1",
        "v",
        "global v",
        "v: int = 1",
        "exec('1')",
    ],
)
def test_reset_that_is_more_than_an_assignment_to_a_state_is_refused(line: str) -> None:
    with pytest.raises(StageError, match="reset"):
        model(reset=line)


@pytest.mark.parametrize(
    "text",
    [
        "v > 9**9**9",
        "v > 2**9",
        "v > 2**v",
        "v > 2**0.5",
        f"v > {'1' * 400}",
        "v > 1e999",
        f"v > {' + '.join(['v'] * 60)}",
        f"v > {'exp(' * 50}v{')' * 50}",
        f"v > {'-' * 3000}1",
        f"v > {'(' * 1900}1{')' * 1900}",
        f"v > {'*'.join(['(v + 1)'] * 7)}",
        "v > (v + tau + gain + I + 1)**4",
        "v > 1" + " " * 4000,
    ],
)
def test_text_that_would_take_long_is_refused(text: str) -> None:
    with pytest.raises(StageError, match="threshold"):
        model(threshold=text)


def test_expressions_that_double_each_other_are_refused() -> None:
    lines = [f"x{k + 1} = x{k} + x{k} : 1" for k in range(20)]
    with pytest.raises(StageError, match="x7 is too large"):
        model(equations="\n".join(["x0 = v : 1", *lines, "dv/dt = -x20/tau : 1"]))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"equations": "x = v : 1\nx : 1\ndv/dt = x/tau : 1"}, "declares 'x'"),
        ({"equations": "dv/dt = y/tau : 1\ny = v : 1"}, "'y', which is not declared above it"),
        ({"equations": "x = x : 1\ndv/dt = x/tau : 1"}, "'x', which is not declared"),
        ({"equations": "x = 1 : 1"}, "no state"),
        ({"equations": "dv/dt = -v/tau"}, "ends in a colon and a unit"),
        ({"equations": "dv/dt = -v/tau : mV"}, "ends in a colon and a unit"),
        ({"equations": "dv/dt = -v/tau : eval(1)"}, "ends in a colon and a unit"),
        ({"equations": "dv/dt : 1"}, "right side is missing"),
        ({"equations": "dv/dt = v > 1 : 1"}, "use int"),
        ({"equations": "dv/dt = -v/tau : 1 (shared)"}, "ends in a colon and a unit"),
        ({"equations": "v = 1 : 1 (unless refractory)"}, "only dv/dt can pause"),
        ({"equations": "dv/dt = -v/t : 1"}, "'t', which is not declared"),
        ({"equations": "dv/dt = xi/tau : 1"}, "'xi', which is not declared"),
        ({"equations": "dexp/dt = 1/tau : 1"}, "declares 'exp'"),
        ({"equations": "dlambda/dt = 1/tau : 1"}, "declares 'lambda'"),
        ({"equations": "dv__w/dt = 1/tau : 1"}, "declares 'v__w'"),
        ({"equations": "dms/dt = 1/tau : 1"}, "declares 'ms'"),
        ({"equations": "dI/dt = 1/tau : 1"}, "declares 'I'"),
        ({"equations": "dv\u00e9/dt = 1/tau : 1"}, "declares"),
        ({"equations": 3}, "must be a text"),
        ({"threshold": "v"}, "must be a comparison"),
        ({"parameters": {"tau": True, "gain": 1}}, "tau is True"),
        ({"parameters": {"tau": "gain*ms", "gain": 1}}, "'gain', which is not declared"),
        ({"parameters": {"_tau": 1}}, "declares '_tau'"),
        ({"parameters": [1]}, "parameters must be a mapping"),
        ({"initial": {"w": 1}}, "initial has w: legal are the states v"),
        ({"initial": {"v": "exp(1)"}}, "legal are numbers and units"),
        ({"method": "exact"}, "legal are euler, exponential_euler, rk2, rk4"),
        ({"dt": None}, "dt is None"),
    ],
)
def test_illegal_layers_are_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StageError, match=sentence):
        model(**changes)


def test_unknown_and_missing_fields_are_faults() -> None:
    (fault,) = Brian2.faults({**LEAKY, "code": "x"}, {})
    assert "brian2 has no parameter code" in fault[1]
    (fault,) = Brian2.faults({n: v for n, v in LEAKY.items() if n != "threshold"}, {})
    assert fault == ("", "a brian2 needs 'threshold'.")


def test_cost_and_state_are_those_of_the_equations() -> None:
    stage = Brian2.authored(LAYERS["adaptive, refractory, in volts"])
    value = ValueType((2, 3), -8, 8)
    spec = stage.state_spec([value])
    assert [(name, dtype) for name, _, dtype in spec] == [
        *(("v", "float64"), ("w", "float64"), ("n", "float64")),
        ("refractory", "int32"),
    ]
    assert stage.cost([value]).state_bytes == 6 * (3 * 8 + 4)
    assert stage.out_type([value]) == ValueType((2, 3), 0, 1)
    with pytest.raises(StageError, match=r"reads units of 2\*\*-0 is given 2\*\*-3"):
        stage.out_type([ValueType((2, 3), -8, 8, 3)])


_WITHOUT = """
import sys
sys.modules["brian2"] = None
import topologies.compiler
import workers.backends.numpy
from topologies.stages.base import StageError, ValueType
from topologies.stages.brian2 import Brian2
from tests.brian2_networks import LAYERS
stage = Brian2.build(Brian2.authored(LAYERS["leaky"]).params(), {})
try:
    Brian2.lowered(LAYERS["leaky"], {}, [ValueType((1,), 0, 1)])
except StageError as error:
    print(error)
"""


def test_without_the_extra_everything_but_a_step_works_and_that_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == (
        "Layers of kind brian2 are run by Brian2, which is not installed here: install the extra "
        "`brian2`.\n"
    ), done.stderr
