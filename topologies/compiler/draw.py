"""Draw a compiled network as text or as SVG. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from topologies.compiled import CompiledNetwork, Node
from topologies.stages.base import ValueType

__all__ = ["draw_svg", "draw_text"]

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 260, 66, 40, 46, 20  # pixels
_COLOURS = {"ingest": "#d7ecff", "synaptic": "#e6f4d9", "readout": "#ffe9cc"}


@dataclass(frozen=True, slots=True)
class _Box:
    node: Node
    lines: tuple[str, ...]
    kind: str
    x: int
    y: int


def draw_text(network: CompiledNetwork) -> str:
    """One block per node, with what it reads; ASCII only."""
    lines = [f"network {network.name} ({network.version[:8]})"]
    for node in network.nodes.values():
        title, *details = _lines(network, node)
        lines += ["", f"[{node.id[:8]}] {title}", *(f"  {detail}" for detail in details)]
        for edge in node.edges:
            late = f", {edge.delay} steps late" if edge.delay else ""
            value = network.summaries[network.nodes[edge.source].operator].output
            lines.append(f"  <- [{edge.source[:8]}] {_type(value)}{late}")
    outputs = network.outputs
    lines += ["", f"-> {outputs.readout} {list(outputs.shape)} {outputs.dtype}"]
    return "\n".join(lines) + "\n"


def _type(value: ValueType) -> str:
    shape = "x".join(map(str, value.shape))
    return f"{shape} spikes" if value.is_spike else f"{shape} in {value.low}..{value.high}"


def _lines(network: CompiledNetwork, node: Node) -> tuple[str, ...]:
    summary = network.summaries[node.operator]
    n_groups = len(network.groups[node.operator])
    cut = f" in {n_groups} groups" if n_groups > 1 else ""
    cost = summary.cost
    return (
        network.labels.get(node.id) or summary.kind,
        " - ".join(summary.stages),
        f"operator {summary.id[:8]}, {cost.n_neurons:,} neurons, {cost.n_synapses:,} synapses{cut}",
    )


def draw_svg(network: CompiledNetwork) -> str:
    """The graph from top to bottom; a node stands below everything it reads without delay."""
    boxes = _layout(network)
    places = {box.node.id: box for box in boxes}
    width = max(box.x for box in boxes) + _WIDTH + _MARGIN
    height = max(box.y for box in boxes) + _HEIGHT + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f"<title>{escape(network.name)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>',
    ]
    for box in boxes:
        parts += [_arrow(places[e.source], box, e.delay) for e in box.node.edges]
    parts += [_rectangle(box) for box in boxes]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _layout(network: CompiledNetwork) -> list[_Box]:
    depth: dict[str, int] = {}
    columns: dict[int, int] = {}
    boxes = []
    for node in network.nodes.values():
        above = [depth[e.source] for e in node.edges if e.source in depth and not e.delay]
        row = depth[node.id] = max(above, default=-1) + 1
        column = columns[row] = columns.get(row, -1) + 1
        x = _MARGIN + column * (_WIDTH + _GAP_X)
        y = _MARGIN + row * (_HEIGHT + _GAP_Y)
        kind = network.summaries[node.operator].kind
        boxes.append(_Box(node, _lines(network, node), kind, x, y))
    return boxes


def _arrow(source: _Box, target: _Box, delay: int) -> str:
    x1, y1 = source.x + _WIDTH // 2, source.y + _HEIGHT
    x2, y2 = target.x + _WIDTH // 2, target.y
    bend = 0 if y2 - y1 <= _GAP_Y else _WIDTH // 2 + _GAP_X // 2
    path = f"M{x1} {y1} C{x1 + bend} {y1 + _GAP_Y} {x2 + bend} {y2 - _GAP_Y} {x2} {y2}"
    line = f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#tip)"/>'
    if not delay:
        return line
    return line + f'<text x="{(x1 + x2) // 2 + bend}" y="{(y1 + y2) // 2}">delay {delay}</text>'


def _rectangle(box: _Box) -> str:
    rows: Sequence[str] = [
        f'<text x="{box.x + _WIDTH // 2}" y="{box.y + 20 + 17 * i}" text-anchor="middle"'
        f"{' font-weight=' + chr(34) + 'bold' + chr(34) if i == 0 else ''}>{escape(line)}</text>"
        for i, line in enumerate(box.lines)
    ]
    frame = (
        f'<rect x="{box.x}" y="{box.y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        f'fill="{_COLOURS[box.kind]}" stroke="#555"/>'
    )
    return "\n".join([frame, *rows])
