"""Check the form of a network file against network.schema.json, all faults at once. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from topologies.model import Fault

__all__ = ["form_faults"]


def _is_integer(checker: object, value: object) -> bool:
    """Of JSON Schema 2.0 is an integer as well, and 1e308: no count of steps, and no size."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: object, value: object) -> bool:
    return _is_integer(checker, value) or (isinstance(value, float) and isfinite(value))


_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    ),
)


def form_faults(document: object, schema: Mapping[str, Any]) -> tuple[Fault, ...]:
    """What is wrong with the form of a document, in the order of the document."""
    errors = _Validator(schema).iter_errors(document)
    faults = {(tuple(map(str, e.absolute_path)), f) for e in errors for f in _faults(e, document)}
    return tuple(fault for _, fault in sorted(faults, key=lambda x: (x[0], str(x[1]))))


def _faults(error: ValidationError, document: object) -> Iterator[Fault]:
    place = _place(list(error.absolute_path), document)
    schema: Any = error.schema
    known = schema.get("properties", {})
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        for name in sorted(set(error.instance) - set(known), key=str):
            yield Fault(_join(place, str(name)), f"is unknown here: legal are {', '.join(known)}.")
    elif error.validator == "required":
        yield Fault(place, error.message.replace(" is a required property", " is missing."))
    else:
        yield Fault(place, _sentence(error))


def _sentence(error: ValidationError) -> str:
    value, legal = error.instance, error.validator_value
    schema: Any = error.schema
    sentences = {
        "type": f"legal is {_words(legal)}",
        "enum": f"legal are {_words(legal)}",
        "const": f"legal is {legal!r}",
        "minimum": f"legal is {legal} or more",
        "exclusiveMinimum": f"legal is more than {legal}",
        "maximum": f"legal is {legal} or less",
        "minItems": f"legal are {legal} or more entries",
        "maxItems": f"legal are {legal} entries or fewer",
        "minLength": "legal is a text that is not empty",
        "minProperties": "legal is one entry or more",
        "pattern": f"legal is a text that matches {legal}",
        "oneOf": f"legal is {schema.get('description', 'one of several forms')}",
    }
    return f"{_short(value)} is not legal: {sentences.get(str(error.validator), error.message)}."


def _words(legal: object) -> str:
    if isinstance(legal, Sequence) and not isinstance(legal, str):
        return ", ".join(map(str, legal))
    return str(legal)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _place(path: Sequence[str | int], document: object) -> str:
    """`layers[2] (conv2).stride`."""
    place, at = "", document
    for part in path:
        at = at[part] if isinstance(at, Mapping | list) else None  # type: ignore[index]
        place = f"{place}[{part}]" if isinstance(part, int) else _join(place, part)
        if place.startswith("layers[") and isinstance(at, Mapping) and isinstance(part, int):
            name = at.get("name")
            place += f" ({name})" if isinstance(name, str) and "." not in place else ""
    return place


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
