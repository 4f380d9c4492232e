"""A table of numbers as coloured cells, drawn as inline SVG."""

import math
from collections.abc import Sequence

from recmerge.evaluation.report.charts import WIDTH, escaped, shortened

_ROW, _HEAD, _GAP = 21, 26, 2
_CHAR = 6.7
_WIDEST = 128.0  # of a cell
_TEXT_FROM = 44.0  # width of a cell from which on its number is written in it
_ON = 0.6  # share of full colour from which on the number takes the page's colour


def heat_map(rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], low: float, high: float, decimals: int = 2) -> str:
    """Draw one cell per row and column; stronger colour is a larger magnitude, and negative values have a colour of their own.

    Args:
        rows: Names, from top to bottom.
        columns: Names, from left to right.
        values: One number per row and column; None and what is not finite leave the cell empty.
        low: The value without colour, or, below zero, that of full colour on the negative side; then zero has none.
        high: The value of full colour.
        decimals: Of the numbers.

    Returns:
        One `<svg>` element.
    """
    left = 16 + _CHAR * max((len(shortened(r)) for r in rows), default=0)
    cell = min(_WIDEST, (WIDTH - left) / max(len(columns), 1))
    names = [escaped(name) for name in columns]
    parts = [
        f'<text class="tick" x="{left + cell * (j + 0.5):.1f}" y="{_HEAD - 9}" text-anchor="middle">'
        f"{escaped(shortened(column, max(3, int(cell / _CHAR))))}<title>{names[j]}</title></text>"
        for j, column in enumerate(columns)
    ]
    for i, (row, line) in enumerate(zip(rows, values, strict=True)):
        y = _HEAD + _ROW * i
        parts.append(f'<text class="tick" x="{left - 8:.1f}" y="{y + 14.5}" text-anchor="end">{escaped(shortened(row))}</text>')
        shown = escaped(row)
        for j, (name, value) in enumerate(zip(names, line, strict=True)):
            parts.append(_cell(left + cell * j, y, cell, value, (low, high), decimals, f"{shown} {name}"))
    height = _HEAD + _ROW * len(rows)
    return f'<svg class="chart heat" viewBox="0 0 {WIDTH} {height + 8}" role="img" aria-label="Heat map">{"".join(parts)}</svg>'


def strength(value: float, low: float, high: float) -> float:
    """Return how strongly a value is coloured, in [-1, 1].

    Args:
        value: What is shown.
        low: See `heat_map`.
        high: See `heat_map`.

    Returns:
        0 for no colour, 1 for full colour, -1 for full colour on the negative side.
    """
    start = max(low, 0.0)
    reach = (high - start) if value >= start else (start - low)
    return max(-1.0, min(1.0, (value - start) / reach)) if reach > 0 else 0.0


def _cell(x: float, y: float, width: float, value: float | None, span: tuple[float, float], decimals: int, name: str) -> str:
    box = f'x="{x:.1f}" y="{y}" width="{width - _GAP:.1f}" height="{_ROW - _GAP}"'
    if value is None or not math.isfinite(value):
        return f'<rect class="cell none" {box}><title>{name}: none</title></rect>'
    share = strength(value, *span)
    kind = "cell minus" if share < 0 else "cell"
    text = f"{value:.{decimals}f}"
    tip = f"<title>{name}: {text}</title>"
    shape = f'<rect class="cell none" {box}>{tip}</rect><rect class="{kind}" {box} fill-opacity="{abs(share):.2f}">{tip}</rect>'
    if width < _TEXT_FROM:
        return shape
    on = " on" if abs(share) >= _ON else ""
    return f'{shape}<text class="cell-text{on}" x="{x + width / 2 - _GAP / 2:.1f}" y="{y + 13.5}" text-anchor="middle">{text}</text>'
