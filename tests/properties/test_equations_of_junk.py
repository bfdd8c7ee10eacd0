"""Equations made of anything: refused with a sentence, or stored in a form that reads as itself."""

import re

from hypothesis import given
from hypothesis import strategies as st

from topologies.stages.base import StageError
from topologies.stages.brian2_text import FUNCTIONS, UNITS, Model

_WORDS = st.sampled_from(
    [
        *("v", "w", "tau", "I", "pi", "t", "x", "__import__", "os", "lambda", "not", "and", "or"),
        *("if", "else", "exp", "clip", "int", "rand", "ms", "volt", "1", "2.5", "1e3", "9**9"),
        *(*"+-*/%@<>=!:;,.()[]{}'\"\\_#\n\t\0 ", "**", "==", "<=", ">=", "!=", ":=", "+=", "-="),
        *("é", "\u2028", "０", "d", "dv/dt = ", " : 1", " : volt", "(unless refractory)"),
    ]
)
_TEXT = st.one_of(st.lists(_WORDS, max_size=30).map(" ".join), st.text(max_size=60))
_LEGAL = re.compile(r"[A-Za-z0-9_.+\-*/<>=!(), \n:]*")
_NAMES = {"v", "w", "x", "tau", "I", "pi", "e", "and", "or", "not", *UNITS, *FUNCTIONS}


def _parsed(equations: str, threshold: str, reset: str, constant: str) -> Model | None:
    fields = {"equations": equations, "threshold": threshold, "reset": reset, "dt": "1*ms"}
    try:
        return Model.parse({**fields, "parameters": {"tau": constant}})
    except StageError:
        return None


@given(_TEXT, _TEXT, _TEXT, _TEXT)
def test_junk_is_refused_or_stored_as_arithmetic_of_known_names(
    equation: str, threshold: str, reset: str, constant: str
) -> None:
    legal = ("dv/dt = -v/tau : 1\nw : 1", "v > 1", "v = 0", "5*ms")
    for place, junk in enumerate((equation, threshold, reset, constant)):
        texts = [*legal]
        texts[place] = f"{legal[0]}\n{junk}" if place == 0 else junk
        found = _parsed(*texts)
        if found is None:
            continue
        assert Model.parse(found.written()) == found
        values = [e.value or "" for e in found.equations]
        stored = "\n".join([*values, found.threshold, *found.reset, dict(found.parameters)["tau"]])
        assert _LEGAL.fullmatch(stored), stored
        words = set(re.findall(r"[A-Za-z_]\w*", re.sub(r"\d[\d.]*(e[+-]?\d+)?", " ", stored)))
        declared = {e.name for e in found.equations}
        assert words <= _NAMES | declared, stored


@given(st.sampled_from(["-", "not ", "exp(", "v+", "v*", "(v+1)*", "v**2**", "int(v>"]))
def test_deep_and_long_text_is_refused_without_being_computed(piece: str) -> None:
    for n in (50, 400, 1300):
        closing = ")" * (n * piece.count("(") - n * piece.count(")"))
        assert _parsed("dv/dt = -v/tau : 1", f"v > {piece * n}1{closing}", "", "5*ms") is None
