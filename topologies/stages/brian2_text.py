"""Neuron equations given as text: what is accepted, and nothing else (docs/adr/0048). No Brian2.

Brian2 makes Python code of its text and runs it, and a topology may come from anyone. So a text is
only read here, into Python's syntax tree; every node of it must be one of those below, every name
one that the layer declares, and what goes on to Brian2 is written anew from the tree. The same
form is stored and hashed: numbers as float64, every operation in brackets.

    equations    lines    dv/dt = EXPRESSION : UNIT            a state, integrated
                          dv/dt = ... : UNIT (unless refractory)
                          w : UNIT                             a state that resets alone change
                          th = EXPRESSION : UNIT               a name for an expression
    threshold    a comparison, or several with and, or, not
    reset        lines    w += EXPRESSION                      or =, -=, *=, /=
    EXPRESSION            numbers, names, + - * /, ** with a whole number, brackets, FUNCTIONS of
                          one expression (clip: of three), comparisons inside of int()
    UNIT                  1, or base units with * / **

A name for an expression stands above the lines that use it. Sizes are limited, since symbolic
mathematics takes long on large expressions: the operations, and the terms if products of sums were
multiplied out. There is no way to write a large integer.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from topologies.stages.base import Json, StageError

__all__ = ["CURRENT", "FIELDS", "FUNCTIONS", "METHODS", "UNITS", "Equation", "Model"]

CURRENT: Final = "I"
METHODS: Final = ("euler", "exponential_euler", "rk2", "rk4")
FUNCTIONS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("exp", "log", "expm1", "log1p", "exprel", "sqrt", "sin", "cos", "tanh"), 1),
    **dict.fromkeys(("abs", "sign", "floor", "ceil", "int"), 1),
    "clip": 3,
}
_BASE: Final = ("second", "volt", "amp", "siemens", "ohm", "farad", "Hz")
UNITS: Final = (
    *(*_BASE, "ms", "us", "mV", "mA", "uA", "nA", "pA", "uS", "nS"),
    *("kohm", "Mohm", "Gohm", "uF", "nF", "pF", "kHz"),
)
FIELDS: Final = (
    *("equations", "threshold", "reset", "parameters", "initial", "refractory", "method", "dt"),
)
# What Brian2 and its generated code call their own.
_RESERVED: Final = frozenset(
    (
        *("i", "j", "t", "dt", "N", "xi", "e", "inf", "rand", "randn", "poisson", "timestep"),
        *("lastspike", "not_refractory", "refractory", "LazyArange", "logical_not"),
        *("numpy_True", "numpy_False"),
        *keyword.kwlist,
    )
)
_MOST_TEXT, _MOST_NODES, _MOST_TERMS, _MOST_NAMES, _DEEPEST = 4000, 200, 64, 24, 40
_LARGEST_EXPONENT = 8
_BINARY: Final[Mapping[type[ast.operator], str]] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
}  # fmt: skip
_UNARY: Final[Mapping[type[ast.unaryop], str]] = {ast.USub: "-", ast.Not: "not ", ast.UAdd: "+"}
_COMPARE: Final[Mapping[type[ast.cmpop], str]] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_]{0,38}[A-Za-z0-9])?", re.ASCII)
_DIFFERENTIAL = re.compile(r"d(\w+)\s*/\s*dt", re.ASCII)
_ONE_UNIT = rf"(?:1|(?:{'|'.join(_BASE)})(?:\*\*-?[1-4])?)"
_UNIT = re.compile(rf"{_ONE_UNIT}(?:[*/]{_ONE_UNIT})*")
_STATEMENT = re.compile(r"(?P<name>\w+)\s*(?P<sign>[-+*/]?=)(?!=)(?P<value>.+)", re.ASCII)
_FLAG: Final = "(unless refractory)"

_Size: TypeAlias = tuple[int, int]
_LEAF: Final[_Size] = (1, 1)
Sort: TypeAlias = Literal["differential", "expression", "plain"]


@dataclass(frozen=True, slots=True)
class Equation:
    """One line of the equations; `value` is None for a state that only resets change."""

    name: str
    sort: Sort
    value: str | None
    unit: str
    pauses: bool = False

    def __str__(self) -> str:
        """The line, as Brian2 reads it."""
        tail = f" : {self.unit}{f' {_FLAG}' if self.pauses else ''}"
        if self.value is None:
            return self.name + tail
        left = f"d{self.name}/dt" if self.sort == "differential" else self.name
        return f"{left} = {self.value}{tail}"


@dataclass(frozen=True, slots=True)
class Model:
    """Checked text in its stored form. Hashable: equal models are equal neurons."""

    equations: tuple[Equation, ...]
    threshold: str
    reset: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    initial: tuple[tuple[str, str], ...]
    refractory: str | None
    method: str
    dt: str

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> Model:
        """The model of a layer's FIELDS. Raises StageError, KeyError for one that is missing."""
        return _Reader(params).model()

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the states, in the order of their lines."""
        return tuple(e.name for e in self.equations if e.sort != "expression")

    def written(self) -> dict[str, Json]:
        """Fields that `parse` reads back as this model."""
        return {
            "equations": "\n".join(map(str, self.equations)),
            "threshold": self.threshold,
            "reset": "\n".join(self.reset),
            "parameters": dict(self.parameters),
            "initial": dict(self.initial),
            "refractory": self.refractory,
            "method": self.method,
            "dt": self.dt,
        }


@dataclass
class _Reader:
    """Reads the fields one after the other; what is known grows."""

    params: Mapping[str, Any]
    # What an expression may name, and how many nodes and terms stand behind the name.
    known: dict[str, _Size] = field(
        default_factory=lambda: dict.fromkeys((CURRENT, "pi", *UNITS), _LEAF)
    )

    def model(self) -> Model:
        parameters = self._constants("parameters")
        for name, _ in parameters:
            self._declare("parameters", name)
        refractory = self.params.get("refractory")
        equations = self._equations()
        states = [e.name for e in equations if e.sort != "expression"]
        if not states:
            raise StageError("equations have no state: write at least one line dv/dt = ... : 1.")
        reset = tuple(self._statement(line, states) for line in _lines(self._text("reset", "")))
        names = [name for name, _ in parameters]
        method = self.params.get("method", "exponential_euler")
        if method not in METHODS:
            raise StageError(f"method is {method!r}: legal are {', '.join(METHODS)}.")
        return Model(
            equations,
            self._condition(self._text("threshold")),
            reset,
            parameters,
            self._initial(states, names),
            None if refractory is None else _constant("refractory", refractory, names),
            method,
            _constant("dt", self.params["dt"], ()),
        )

    def _text(self, name: str, usual: str | None = None) -> str:
        value = self.params[name] if usual is None else self.params.get(name, usual)
        if not isinstance(value, str) or len(value) > _MOST_TEXT:
            raise StageError(f"{name} must be a text of up to {_MOST_TEXT} characters.")
        return value

    def _mapping(self, name: str) -> Mapping[str, Any]:
        value = self.params.get(name) or {}
        if not isinstance(value, Mapping) or len(value) > _MOST_NAMES:
            raise StageError(f"{name} must be a mapping of up to {_MOST_NAMES} names to values.")
        return value

    def _constants(self, name: str) -> tuple[tuple[str, str], ...]:
        given = self._mapping(name)
        return tuple((key, _constant(key, given[key], ())) for key in sorted(given))

    def _initial(self, states: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        given = self._mapping("initial")
        if strangers := sorted(set(given) - set(states)):
            raise StageError(
                f"initial has {', '.join(strangers)}: legal are the states {', '.join(states)}."
            )
        return tuple((key, _constant(key, given[key], names)) for key in sorted(given))

    def _declare(self, where: str, name: str, size: _Size = (1, 1)) -> None:
        taken = name in self.known or name in _RESERVED or name in FUNCTIONS
        if taken or "__" in name or not _NAME.fullmatch(name):
            raise StageError(
                f"{where} declares {name!r}: a name is declared once, is letters, digits and single"
                " _ inside, up to 40, and none of Brian2's own names, units and functions."
            )
        self.known[name] = size

    def _equations(self) -> tuple[Equation, ...]:
        lines = [_parts(line) for line in _lines(self._text("equations"))]
        if len(lines) > _MOST_NAMES:
            raise StageError(f"equations have {len(lines)} lines: legal are up to {_MOST_NAMES}.")
        for name, sort, *_ in lines:  # a state may stand in any line
            if sort != "expression":
                self._declare("equations", name)
        return tuple(self._equation(*parts) for parts in lines)

    def _equation(
        self, name: str, sort: Sort, text: str | None, unit: str, pauses: bool
    ) -> Equation:
        if text is None:
            return Equation(name, sort, None, unit)
        tree = _tree(name, text)
        value = self._number(name, tree)
        if sort == "expression":
            self._declare("equations", name, _size(name, tree, self.known))
        return Equation(name, sort, value, unit, pauses)

    def _number(self, where: str, tree: ast.expr) -> str:
        _size(where, tree, self.known)
        if isinstance(tree, ast.Compare | ast.BoolOp):
            raise StageError(f"{where} is a comparison where a number must stand: use int(...).")
        return _written(where, tree, self.known)

    def _condition(self, text: str) -> str:
        tree = _tree("threshold", text)
        _size("threshold", tree, self.known)
        if not isinstance(tree, ast.Compare | ast.BoolOp):
            raise StageError(f"threshold is {text!r}: it must be a comparison, as v > 1.")
        return _written("threshold", tree, self.known)

    def _statement(self, line: str, states: Sequence[str]) -> str:
        found = _STATEMENT.fullmatch(line)
        if found is None or found["name"] not in states:
            raise StageError(
                f"reset has the line {line!r}: a line is one of the states {', '.join(states)}, "
                "then =, +=, -=, *= or /=, and an expression."
            )
        value = self._number("reset", _tree("reset", found["value"]))
        return f"{found['name']} {found['sign']} {value}"


def _size(where: str, tree: ast.expr, known: Mapping[str, _Size]) -> _Size:
    """Nodes and terms, with those that names stand for. Raises StageError for too many."""
    if sum(1 for _ in ast.walk(tree)) <= 3 * _MOST_NODES:  # else too deep to be counted
        n_nodes, n_terms = _counted(tree, known)
        if n_nodes <= _MOST_NODES and n_terms <= _MOST_TERMS:
            return n_nodes, n_terms
    raise StageError(
        f"{where} is too large with all that its names stand for: legal are {_MOST_NODES} names, "
        f"numbers and operations, and {_MOST_TERMS} terms if its brackets were multiplied out."
    )


def _counted(node: ast.AST, known: Mapping[str, _Size]) -> _Size:
    """(names, numbers and operations; the most terms of any part, multiplied out)."""
    if isinstance(node, ast.Name):
        return known.get(node.id, _LEAF)
    parts = [_counted(x, known) for x in ast.iter_child_nodes(node) if isinstance(x, ast.expr)]
    n_nodes, terms = 1 + sum(n for n, _ in parts), [n for _, n in parts] or [1]
    match node:
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            return n_nodes, sum(terms)
        case ast.BinOp(op=ast.Mult()):
            return n_nodes, math.prod(terms)
        case ast.BinOp(op=ast.Pow(), right=ast.Constant(value=int() as power)):
            return n_nodes, terms[0] ** min(power, _LARGEST_EXPONENT)
    return n_nodes, max(terms)


def _lines(text: str) -> Iterator[str]:
    """Lines without comments, none empty."""
    stripped = (line.partition("#")[0].strip() for line in text.splitlines())
    return (line for line in stripped if line)


def _parts(line: str) -> tuple[str, Sort, str | None, str, bool]:
    """(name, sort, expression or None, unit, whether it pauses) of a line of the equations."""
    body, colon, unit = line.rpartition(":")
    pauses = unit.rstrip().endswith(_FLAG)
    unit = (unit.rstrip().removesuffix(_FLAG) if pauses else unit).replace(" ", "")
    if not colon or not _UNIT.fullmatch(unit):
        raise StageError(
            f"equations have the line {line!r}: a line ends in a colon and a unit, 1 or a product "
            f"of {', '.join(_BASE)}, and perhaps {_FLAG}."
        )
    left, equals, text = body.partition("=")
    name = left.strip()
    if found := _DIFFERENTIAL.fullmatch(name):
        if not equals:
            raise StageError(f"equations have the line {line!r}: its right side is missing.")
        return found[1], "differential", text, unit, pauses
    if pauses:
        raise StageError(f"equations have the line {line!r}: only dv/dt can pause.")
    return (name, "expression", text, unit, False) if equals else (name, "plain", None, unit, False)


def _constant(where: str, value: Any, names: Collection[str]) -> str:
    """A number, or a text of numbers, units and `names` with + - * / **, in its stored form."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(float(value))
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise StageError(f"{where} is {value!r}: it must be a number, or a text like 20*ms.")
    tree = _tree(where, value)
    plain = (ast.BinOp, ast.UnaryOp, ast.Constant, ast.Name, ast.operator, ast.USub, ast.Load)
    if not all(isinstance(node, plain) for node in ast.walk(tree)):
        raise StageError(f"{where} is {value!r}: legal are numbers and units with + - * / **.")
    return _written(where, tree, ("pi", *UNITS, *names))


def _tree(where: str, text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise StageError(f"{where} has {text.strip()[:80]!r}, which is no expression.") from error


def _written(where: str, node: ast.AST, names: Collection[str], depth: int = 0) -> str:
    """An expression anew, of legal nodes only; `names` are those that it may use.

    Raises StageError for anything else.
    """
    if depth > _DEEPEST:
        raise StageError(f"{where} has more than {_DEEPEST} brackets inside of each other.")

    def inner(part: ast.AST) -> str:
        return _written(where, part, names, depth + 1)

    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _number(where, value)
        case ast.Name(id=name) if name in names:
            return name
        case ast.Name(id=name):
            raise StageError(f"{where} uses the name {name!r}, which is not declared above it.")
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return f"({inner(left)}**{_exponent(where, right)})"
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return f"({inner(left)} {_BINARY[type(op)]} {inner(right)})"
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return f"({_UNARY[type(op)]}{inner(operand)})"
        case ast.BoolOp(op=op, values=values):
            word = " and " if isinstance(op, ast.And) else " or "
            return f"({word.join(map(inner, values))})"
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return f"({inner(left)} {_COMPARE[type(op)]} {inner(right)})"
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return f"{name}({', '.join(_arguments(where, name, args, inner))})"
    raise StageError(
        f"{where} has {ast.unparse(node)[:60]!r}: legal are numbers, declared names, + - * / **, "
        f"brackets, single comparisons, and, or, not, and the functions {', '.join(FUNCTIONS)}."
    )


def _arguments(
    where: str, name: str, args: Sequence[ast.expr], inner: Callable[[ast.AST], str]
) -> list[str]:
    if len(args) != FUNCTIONS[name]:
        raise StageError(f"{where} gives {name} {len(args)} values: legal is {FUNCTIONS[name]}.")
    return [inner(arg) for arg in args]


def _number(where: str, value: float) -> str:
    """float64, so that no arithmetic of unbounded integers can follow."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise StageError(f"{where} has a number that is beyond float64.")
    return repr(number)


def _exponent(where: str, node: ast.expr) -> str:
    sign, digits = 1, node
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, digits = -1, node.operand
    value = digits.value if isinstance(digits, ast.Constant) else None
    if type(value) is int and 0 <= value <= _LARGEST_EXPONENT:
        return str(value * sign) if sign > 0 else f"({-value})"
    raise StageError(
        f"{where} has the exponent {ast.unparse(node)[:60]}: legal are whole numbers from "
        f"-{_LARGEST_EXPONENT} to {_LARGEST_EXPONENT}; a root is sqrt(...)."
    )
