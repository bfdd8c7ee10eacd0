"""YAML as plain data, within bounds. Pure.

A text of a few lines can unfold to billions of nodes, by aliases of aliases, and to numbers that
take minutes to read. Nodes are counted as often as they are referred to, before any is built.
"""

from collections.abc import Hashable
from typing import Any, Final

import yaml

__all__ = ["read_yaml"]

_DEEPEST: Final = 40  # nodes in nodes
_MOST_NODES: Final = 500_000  # with those that aliases refer to, each time
_LONGEST_NUMBER: Final = 100  # characters: one in base 60 takes time by the square
_NUMBERS: Final = tuple(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))


def read_yaml(text: str) -> Any:
    """What the text says. Raises yaml.YAMLError for everything that is wrong with it."""
    try:
        return yaml.load(text, _Bounded)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # PyYAML's constructors raise these for `!!float x`, `!!bool x`, or a 30th of February.
        raise yaml.YAMLError(
            f"a value is not of the kind that it is said to be ({error})"
        ) from error


class _Bounded(yaml.SafeLoader):
    """YAML within bounds, without duplicate keys, of which the last would win without a word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            at = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise _problem(f"it is nested deeper than {_DEEPEST}", at)
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
            return node
        finally:
            self._depth -= 1

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._count(node, {}, ())
        return node

    def _count(self, node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
        """Nodes of what is built of this one. Aliases may make its parents its children."""
        if isinstance(node, yaml.ScalarNode):
            return 1
        if id(node) in above:
            raise _problem("it contains itself", node.start_mark)
        if id(node) not in known:
            children = (
                [part for pair in node.value for part in pair]
                if isinstance(node, yaml.MappingNode)
                else node.value
            )
            above = (*above, id(node))
            known[id(node)] = 1 + sum(self._count(child, known, above) for child in children)
        if known[id(node)] > _MOST_NODES:
            raise _problem(f"it unfolds to more than {_MOST_NODES:,} values", node.start_mark)
        return known[id(node)]

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if (
            isinstance(node, yaml.ScalarNode)
            and node.tag in _NUMBERS
            and len(node.value) > _LONGEST_NUMBER
        ):
            raise _problem(
                f"a number has {len(node.value)} characters, legal are {_LONGEST_NUMBER}",
                node.start_mark,
            )
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        names = [key for key in keys if isinstance(key, Hashable)]
        if len(set(names)) < len(names):
            twice = sorted({str(key) for key in names if names.count(key) > 1})
            raise _problem(f"{', '.join(twice)[:200]} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _problem(text: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=at)
