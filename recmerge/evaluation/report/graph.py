"""From what a result came: boxes in columns, arrows from left to right, drawn as inline SVG."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from recmerge.evaluation.report.charts import escaped, shortened

_BOX_HEIGHT, _LANE_HEIGHT, _GAP = 44.0, 12.0, 14.0
_COLUMN_GAP = 46.0
_CHAR, _BOLD_CHAR, _MAX_CHARS = 6.7, 7.9, 22
_SWEEPS = 6  # passes that straighten the arrows
_TIP = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="tip" d="M0 0.5L8 4L0 7.5z"/></marker></defs>'
)


@dataclass(frozen=True)
class Node:
    """One box.

    Args:
        id: Unique; edges name it.
        label: Its first line.
        detail: Its second line.
        column: Which column it stands in, from 0.
    """

    id: str
    label: str
    detail: str
    column: int


@dataclass
class _Slot:
    """A place in a column: a box, or the lane of an arrow that passes the column."""

    id: str
    node: Node | None
    y: float = 0.0

    @property
    def height(self) -> float:
        return _BOX_HEIGHT if self.node else _LANE_HEIGHT


def lineage_chart(nodes: Sequence[Node], edges: Iterable[tuple[str, str]], columns: Sequence[str]) -> str:
    """Draw a graph of boxes; an arrow that spans several columns gets a lane of its own, so that it never runs behind a box.

    Args:
        nodes: The boxes.
        edges: (from, to) ids, from a column further left to one further right.
        columns: The columns' headings.

    Returns:
        One `<svg>` element.

    Raises:
        ValueError: An edge does not lead from left to right, or names no box.
    """
    layers, chains = _layers(nodes, edges, len(columns))
    _order(layers, chains)
    used = [c for c, layer in enumerate(layers) if any(s.node for s in layer)]
    widths = [_column_width(layers[c], columns[c]) if c in used else 0.0 for c in range(len(columns))]
    lefts, at = [], 2.0
    for width in widths:
        lefts.append(at)
        at += width + _COLUMN_GAP if width else 0.0
    height = 30 + _place(layers)
    slots = {slot.id: (c, slot) for c, layer in enumerate(layers) for slot in layer}
    parts = [f'<text class="column-name" x="{lefts[c] + widths[c] / 2:.1f}" y="16" text-anchor="middle">{escaped(columns[c])}</text>' for c in used]
    parts += [_arrow([slots[i] for i in chain], lefts, widths) for chain in chains]
    parts += [_box(slot, lefts[c], widths[c]) for c, layer in enumerate(layers) for slot in layer if slot.node]
    width = max(at - _COLUMN_GAP + 2, 480)
    name = 'role="img" aria-label="From what the result came"'
    return f'<svg class="chart lineage" viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" {name}>{_TIP}{"".join(parts)}</svg>'


def _layers(nodes: Sequence[Node], edges: Iterable[tuple[str, str]], n_columns: int) -> tuple[list[list[_Slot]], list[list[str]]]:
    """Put boxes and lanes into columns; a chain is an edge as the slots it runs through."""
    layers: list[list[_Slot]] = [[] for _ in range(n_columns)]
    column = {node.id: node.column for node in nodes}
    for node in nodes:
        layers[node.column].append(_Slot(node.id, node))
    chains = []
    for start, end in dict.fromkeys(edges):
        if start not in column or end not in column or column[start] >= column[end]:
            raise ValueError(f"the edge from '{start}' to '{end}' does not lead from a box on the left to one on the right")
        chain = [start]
        for c in range(column[start] + 1, column[end]):
            lane = _Slot(f"{start}\x1f{end}\x1f{c}", None)
            layers[c].append(lane)
            chain.append(lane.id)
        chains.append([*chain, end])
    return layers, chains


def _order(layers: list[list[_Slot]], chains: list[list[str]]) -> None:
    """Sort each column by the mean place of its neighbours, to and fro, so that few arrows cross.

    Source: Sugiyama, Tagawa and Toda (1981), the barycentre heuristic.
    """
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for chain in chains:
        for a, b in pairwise(chain):
            after.setdefault(a, []).append(b)
            before.setdefault(b, []).append(a)
    place = {slot.id: i / max(len(layer), 1) for layer in layers for i, slot in enumerate(layer)}
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        for layer in layers if forward else reversed(layers):
            layer.sort(key=lambda s: fmean(place[n] for n in neighbours[s.id]) if s.id in neighbours else place[s.id])
            place.update({slot.id: (i + 0.5) / len(layer) for i, slot in enumerate(layer)})


def _place(layers: list[list[_Slot]]) -> float:
    """Set every slot's top, each column centred on the tallest, and return the height."""
    totals = [sum(s.height for s in layer) + _GAP * max(len(layer) - 1, 0) for layer in layers]
    for layer, total in zip(layers, totals, strict=True):
        y = 30 + (max(totals) - total) / 2
        for slot in layer:
            slot.y = y
            y += slot.height + _GAP
    return max(totals) + 4


def _column_width(layer: Sequence[_Slot], heading: str) -> float:
    labels = [_BOLD_CHAR * len(shortened(s.node.label, _MAX_CHARS)) for s in layer if s.node]
    details = [_CHAR * len(shortened(s.node.detail, _MAX_CHARS + 3)) for s in layer if s.node]
    return 22 + max(_CHAR * len(heading), *labels, *details)


def _arrow(chain: Sequence[tuple[int, _Slot]], lefts: Sequence[float], widths: Sequence[float]) -> str:
    commands = ""
    for (c, a), (d, b) in pairwise(chain):
        x1, y1 = lefts[c] + widths[c], a.y + a.height / 2
        x2, y2 = lefts[d], b.y + b.height / 2
        bend = (x2 - x1) / 2
        commands += f"{'' if commands else f'M{x1:.1f} {y1:.1f}'}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        if b.node is None:
            commands += f"H{lefts[d] + widths[d]:.1f}"
    return f'<path class="arrow" d="{commands}" marker-end="url(#arrow)"/>'


def _box(slot: _Slot, left: float, width: float) -> str:
    node = slot.node
    assert node is not None
    middle = left + width / 2
    return (
        f"<g><title>{escaped(f'{node.label} {node.detail}')}</title>"
        f'<rect class="box" x="{left:.1f}" y="{slot.y:.1f}" width="{width:.1f}" height="{_BOX_HEIGHT}" rx="5"/>'
        f'<text class="box-label" x="{middle:.1f}" y="{slot.y + 19:.1f}" text-anchor="middle">{escaped(shortened(node.label, _MAX_CHARS))}</text>'
        f'<text class="box-detail" x="{middle:.1f}" y="{slot.y + 35:.1f}" text-anchor="middle">{escaped(shortened(node.detail, _MAX_CHARS + 3))}</text></g>'
    )
