"""Bars with intervals, drawn as inline SVG; colours come from the page's style sheet."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recmerge.errors import printable

Scale = Callable[[float], float]  # from a value to a place in pixels

WIDTH = 960
NARROW = 400  # of the drawing that a phone shows instead
CHAR = 6.7  # mean width of a character at 12.5 px, for laying out text that cannot be measured
_MAX_LABEL = 34


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        label: Its name.
        value: Its length, in the chart's unit.
        low: Lower end of its interval, if any.
        high: Upper end of its interval, if any.
        emphasis: Draw it in the accent colour.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    emphasis: bool = False


@dataclass(frozen=True)
class Reference:
    """A dashed line across a chart, such as the value of a random order.

    Args:
        label: Its name.
        value: Where it stands, in the chart's unit.
    """

    label: str
    value: float


@dataclass(frozen=True)
class Line:
    """One line of a line chart.

    Args:
        label: Its name.
        xs: Positions, ascending.
        ys: Values; a value that is not finite interrupts the line.
        dashed: Draw it dashed, for references.
        spans: Lower and upper end of the interval at each position; empty: none is drawn.
    """

    label: str
    xs: Sequence[float] = field(repr=False)
    ys: Sequence[float] = field(repr=False)
    dashed: bool = False
    spans: Sequence[tuple[float, float]] = field(default=(), repr=False)


def escaped(text: str) -> str:
    """Return a text that is safe inside SVG and HTML, on one line, control characters made visible."""
    return html.escape(printable(text))


def shortened(text: str, n_chars: int = _MAX_LABEL) -> str:
    """Return a text cut in the middle to at most `n_chars` characters."""
    flat = printable(text)
    if len(flat) <= n_chars:
        return flat
    head = (n_chars - 1) * 2 // 3
    return f"{flat[:head]}…{flat[len(flat) - (n_chars - 1 - head) :]}"


def nice_ticks(low: float, high: float, n_wanted: int = 6) -> list[float]:
    """Return round numbers that cover a range.

    Args:
        low: The smallest value shown.
        high: The largest value shown.
        n_wanted: About how many ticks.

    Returns:
        Ticks, the first at or below `low`, the last at or above `high`.

    >>> nice_ticks(0, 0.43)
    [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    """
    if not high > low:
        high = low + 1
    raw = (high - low) / n_wanted
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_text(value: float, step: float) -> str:
    """Return a tick's text with as many decimals as its step needs."""
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step < 1 else 0
    if round(step * 10**decimals, 9) % 1:  # a step such as 0.025
        decimals += 1
    return f"{value:,.{decimals}f}"


def bar_chart(bars: Sequence[Bar], axis: str, references: Sequence[Reference] = (), decimals: int = 3, *, signed: bool = False, width: int = WIDTH) -> str:
    """Draw horizontal bars from zero, with whiskers for their intervals.

    Args:
        bars: From top to bottom.
        axis: What the axis measures, with its unit.
        references: Dashed lines; their names stand above the bars.
        decimals: Of the values written beside the bars.
        signed: Write a plus before positive values: the bars are differences.
        width: Of the drawing, in pixels at which its text has the size of the page's; where it is narrow, names and values stand above the bars.

    Returns:
        One `<svg>` element.
    """
    texts = [_value_text(b, decimals, "+" if signed else "") for b in bars]
    wide = width >= WIDTH
    left = 24 + CHAR * max((len(shortened(b.label)) for b in bars), default=0) if wide else 24
    right = 40 + CHAR * max((len(t) for t in texts), default=0) if wide else 24
    ends = [0.0, *(r.value for r in references)] + [v for b in bars for v in (b.value, b.low, b.high) if v is not None and math.isfinite(v)]
    ticks = nice_ticks(min(ends), max(ends), 6 if wide else 4)
    plot = width - left - right

    def x(value: float) -> float:
        return left + plot * (value - ticks[0]) / (ticks[-1] - ticks[0])

    row, gap = 30 if wide else 48, 8
    lines, head = _reference_lines(references, x, gap + row * len(bars), width)
    top, bottom = head + gap, head + gap + row * len(bars)
    parts = [vertical_grid(ticks, x, top, bottom)]
    middles = [top + row * (i + 1) - 15 for i in range(len(bars))]
    parts += [_bar(bar, x, middle) for bar, middle in zip(bars, middles, strict=True)]
    parts += lines
    for bar, text, middle in zip(bars, texts, middles, strict=True):  # over the lines, which may pass behind a name
        parts.append(_names_beside(bar, text, middle + 4, left, width) if wide else _names_above(bar, text, middle - 15, width))
    parts.append(f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
    parts.append(f'<text class="axis-name" x="{left + plot / 2:.1f}" y="{bottom + 40:.1f}" text-anchor="middle">{escaped(axis)}</text>')
    return drawing(width, bottom + 50, parts, f"Bar chart: {axis}")


def drawing(width: int, height: float, parts: Sequence[str], name: str) -> str:
    """Return an `<svg>` element of its parts; every text in them is escaped already."""
    kind = "chart" if width >= WIDTH else "chart narrow"
    return f'<svg class="{kind}" viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escaped(name)}">{"".join(parts)}</svg>'


def _value_text(bar: Bar, decimals: int, sign: str) -> str:
    if not math.isfinite(bar.value):
        return "n/a"
    form = f"{sign}.{decimals}f"
    text = f"{bar.value:{form}}"
    return text if bar.low is None or bar.high is None else f"{text}  [{bar.low:{form}}, {bar.high:{form}}]"


def _names_beside(bar: Bar, text: str, y: float, left: float, width: int) -> str:
    """Write a bar's name at its left and its value at the right end."""
    full = f"<title>{escaped(bar.label)}</title>"
    name = f'<text class="label" x="{left - 12:.1f}" y="{y:.1f}" text-anchor="end">{escaped(shortened(bar.label))}{full}</text>'
    return f'{name}<text class="value" x="{width - 8}" y="{y:.1f}" text-anchor="end">{text}</text>'


def _names_above(bar: Bar, text: str, y: float, width: int) -> str:
    """Write a bar's name and its value above it."""
    room = int((width - 24) / CHAR) - len(text)
    name = f'<text class="label" x="2" y="{y:.1f}">{escaped(shortened(bar.label, max(room, 8)))}</text>'
    return f'{name}<text class="value" x="{width - 2}" y="{y:.1f}" text-anchor="end">{text}</text>'


def _bar(bar: Bar, x: Scale, middle: float) -> str:
    if not math.isfinite(bar.value):
        return ""
    start, end = sorted((x(0), x(bar.value)))
    kind, width = "bar accent" if bar.emphasis else "bar", max(end - start, 0.5)
    shape = f'<rect class="{kind}" x="{start:.1f}" y="{middle - 9:.1f}" width="{width:.1f}" height="18" rx="2"/>'
    if bar.low is None or bar.high is None:
        return shape
    a, b, cap = x(bar.low), x(bar.high), f"{middle - 5:.1f}V{middle + 5:.1f}"
    return f'{shape}<path class="whisker" d="M{a:.1f} {cap}M{a:.1f} {middle:.1f}H{b:.1f}M{b:.1f} {cap}"/>'


def vertical_grid(ticks: Sequence[float], x: Scale, top: float, bottom: float, step: float | None = None) -> str:
    """Draw vertical lines at ticks, from `top` to `bottom`, their numbers below; `step`, if given, says how many decimals these need."""
    gap = step or ticks[1] - ticks[0]
    lines = [f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>' for t in ticks]
    texts = [f'<text class="tick" x="{x(t):.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{tick_text(t, gap)}</text>' for t in ticks]
    return "".join(lines + texts)


def _reference_lines(references: Sequence[Reference], x: Scale, below: float, width: int) -> tuple[list[str], float]:
    """Draw each line from a name that starts at its upper end, down to `below` under the names, and return the names' height.

    From right to left, a name goes on the first level where it does not touch the name to its right: no line then crosses a name.
    """
    starts: list[float] = []  # of the leftmost name on each level
    placed: list[tuple[Reference, str, int]] = []
    for reference in sorted(references, key=lambda r: -r.value):
        text = f"{shortened(reference.label)} {reference.value:.3f}"
        end = x(reference.value) + 5 + CHAR * len(text)
        level = next((i for i, start in enumerate(starts) if end + 8 < start), len(starts))
        starts[level : level + 1] = [x(reference.value)]
        placed.append((reference, text, level))
    head = 16.0 * len(starts)
    drawn = []
    for reference, text, level in placed:
        at, y = x(reference.value), head - 16 * level
        left = min(at + 5, width - CHAR * len(text))
        drawn.append(f'<text class="ref-name" x="{left:.1f}" y="{y - 4:.1f}">{escaped(text)}</text>')
        drawn.append(f'<path class="ref" d="M{at:.1f} {y - 14:.1f}V{head + below:.1f}"/>')
    return drawn, head
