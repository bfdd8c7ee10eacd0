"""Draw what networks share, as SVG. Pure.

One column per network under the name of its family, one box per place, the input above. Boxes of
one fill are one operator, in one network or several; a stripe of one colour at the left marks the
same signature with other weights. What stands alone is grey.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from topologies.sharing import Level, Place, Sharing

__all__ = ["draw_sharing"]

_WIDTH, _HEIGHT, _GAP, _MARGIN, _HEAD = 190, 44, 10, 20, 80  # pixels
_STRIPE, _MOST = 8, 26  # pixels; characters of a label
_ALONE = "#f2f2f2"
_HUES = (205, 95, 35, 280, 0, 165, 60, 320, 235, 130)  # degrees, neighbours far apart


def draw_sharing(sharing: Sharing) -> str:
    """The picture of an analysis."""
    families = {name: row.name for row in sharing.families for name in row.networks}
    names = list(families) or list(sharing.total.networks)
    columns = {name: [p for p in sharing.places if p.network == name] for name in names}
    fills = _colours(sharing.places, "exact", "hsl({hue},70%,{light}%)", 82)
    stripes = _colours(sharing.places, "signature", "hsl({hue},75%,{light}%)", 42)
    width = 2 * _MARGIN + len(names) * (_WIDTH + _GAP) - _GAP
    rows = max(len(places) for places in columns.values())
    height = _HEAD + rows * (_HEIGHT + _GAP) + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f"<title>{escape('Operators of ' + ', '.join(names))}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_MARGIN}" y="18" fill="#555">One fill: the same operator. '
        "One stripe: the same shapes, other weights. Size: neurons plus synapses.</text>",
    ]
    for column, (name, places) in enumerate(columns.items()):
        x = _MARGIN + column * (_WIDTH + _GAP)
        family = families.get(name, "")
        parts.append(f'<text x="{x}" y="{_HEAD - 30}" fill="#555">{escape(family)}</text>')
        parts.append(f'<text x="{x}" y="{_HEAD - 14}" font-weight="bold">{escape(name)}</text>')
        parts += [
            _box(place, x, _HEAD + row * (_HEIGHT + _GAP), fills, stripes)
            for row, place in enumerate(places)
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _colours(places: Sequence[Place], level: Level, pattern: str, light: int) -> Mapping[str, str]:
    """A colour for each class that stands in more than one place; lighter with each round."""
    repeated = _repeated(place.classes[level] for place in places)
    return {
        key: pattern.format(hue=_HUES[i % len(_HUES)], light=light + 6 * (i // len(_HUES) % 3))
        for i, key in enumerate(repeated)
    }


def _repeated(keys: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[key] = counts.get(key, 0) + 1
    return [key for key, count in counts.items() if count > 1]


def _box(place: Place, x: int, y: int, fills: Mapping[str, str], stripes: Mapping[str, str]) -> str:
    label = place.label.replace("+", " ")
    short = label if len(label) <= _MOST else f"{label[: _MOST - 1]}…"
    fill = fills.get(place.classes["exact"], _ALONE)
    stripe = stripes.get(place.classes["signature"])
    parts = [
        f"<g><title>{escape(f'{label}: operator {place.summary.id}')}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="4" fill="{fill}" '
        'stroke="#555"/>',
        f'<text x="{x + 16}" y="{y + 18}">{escape(short)}</text>',
        f'<text x="{x + 16}" y="{y + 34}" fill="#555">{place.summary.id[:8]}, '
        f"size {place.size:,}</text></g>",
    ]
    if stripe is not None:
        parts.insert(
            1, f'<rect x="{x}" y="{y}" width="{_STRIPE}" height="{_HEIGHT}" fill="{stripe}"/>'
        )
    return "\n".join(parts)
