"""Bars with intervals and lines, drawn as inline SVG; colours come from the page's style sheet."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recmerge.errors import printable

Scale = Callable[[float], float]  # from a value to a place in pixels

WIDTH = 960
_CHAR = 6.7  # mean width of a character at 12.5 px, for laying out text that cannot be measured
_COLOURS = 6  # series colours of the style sheet; more series differ by dashes too
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


def bar_chart(bars: Sequence[Bar], axis: str, references: Sequence[Reference] = (), decimals: int = 3, *, signed: bool = False) -> str:
    """Draw horizontal bars from zero, with whiskers for their intervals.

    Args:
        bars: From top to bottom.
        axis: What the axis measures, with its unit.
        references: Dashed lines; their names stand above the bars.
        decimals: Of the values written beside the bars.
        signed: Write a plus before positive values: the bars are differences.

    Returns:
        One `<svg>` element.
    """
    texts = [_value_text(b, decimals, "+" if signed else "") for b in bars]
    left = 24 + _CHAR * max((len(shortened(b.label)) for b in bars), default=0)
    right = 40 + _CHAR * max((len(t) for t in texts), default=0)
    ends = [0.0, *(r.value for r in references)] + [v for b in bars for v in (b.value, b.low, b.high) if v is not None and math.isfinite(v)]
    ticks = nice_ticks(min(ends), max(ends))
    plot = WIDTH - left - right

    def x(value: float) -> float:
        return left + plot * (value - ticks[0]) / (ticks[-1] - ticks[0])

    row, gap = 30, 8
    lines, head = _reference_lines(references, x, gap + row * len(bars))
    top, bottom = head + gap, head + gap + row * len(bars)
    parts = [_vertical_grid(ticks, x, top, bottom)]
    for i, (bar, text) in enumerate(zip(bars, texts, strict=True)):
        parts.append(_bar(bar, text, x, top + row * i + row / 2, left))
    parts += lines
    parts.append(f'<line class="axis" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
    parts.append(f'<text class="axis-name" x="{left + plot / 2:.1f}" y="{bottom + 40:.1f}" text-anchor="middle">{escaped(axis)}</text>')
    return _svg(bottom + 50, parts, f"Bar chart: {axis}")


def line_chart(lines: Sequence[Line], x_axis: str, y_axis: str, *, from_zero: bool = True, log_x: bool = False) -> str:
    """Draw lines over a common axis, with a legend above them.

    Args:
        lines: What to draw.
        x_axis: What the horizontal axis measures, with its unit.
        y_axis: What the vertical axis measures, with its unit.
        from_zero: Start the vertical axis at zero.
        log_x: Equal distances are equal ratios; the ticks are the lines' own positions, all above zero.

    Returns:
        One `<svg>` element.
    """
    points = [(px, py) for line in lines for px, py in zip(line.xs, line.ys, strict=True) if math.isfinite(px) and math.isfinite(py)]
    xs, ys = [p[0] for p in points] or [1.0, 2.0], [p[1] for p in points] or [0.0, 1.0]
    ys += [end for line in lines for span in line.spans for end in span if math.isfinite(end)]
    x_ticks = sorted(set(xs)) if log_x else nice_ticks(min(xs), max(xs), 8)
    y_ticks = nice_ticks(min(0.0, *ys) if from_zero else min(ys), max(ys), 5)
    legend, head = _legend(lines)
    left, right, top, height = 72.0, 24.0, head + 12, 280.0
    bottom = top + height
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1  # the lines fill the width; ticks beyond it are left out

    def x(value: float) -> float:
        share = math.log(value / x_low) / math.log(x_high / x_low) if log_x else (value - x_low) / (x_high - x_low)
        return left + (WIDTH - left - right) * share

    def y(value: float) -> float:
        return bottom - height * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    parts = [legend, _vertical_grid([t for t in x_ticks if x_low <= t <= x_high], x, top, bottom, step=1.0 if log_x else x_ticks[1] - x_ticks[0])]
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick_text(tick, y_ticks[1] - y_ticks[0])}</text>')
    for i, line in enumerate(lines):
        parts.append(f'<path class="{_line_class(i, line)}" d="{_path(line, x, y)}"><title>{escaped(line.label)}</title></path>')
        parts.append(_spans(line, x, y, 3.0 * (i - (len(lines) - 1) / 2)))
    parts.append(f'<line class="axis" x1="{left}" x2="{WIDTH - right}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
    parts.append(f'<text class="axis-name" x="{(left + WIDTH - right) / 2:.1f}" y="{bottom + 40:.1f}" text-anchor="middle">{escaped(x_axis)}</text>')
    parts.append(f'<text class="axis-name" transform="translate(16 {top + height / 2:.1f}) rotate(-90)" text-anchor="middle">{escaped(y_axis)}</text>')
    return _svg(bottom + 50, parts, f"Line chart: {y_axis} by {x_axis}")


def _svg(height: float, parts: Sequence[str], name: str) -> str:
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escaped(name)}">{"".join(parts)}</svg>'


def _value_text(bar: Bar, decimals: int, sign: str) -> str:
    if not math.isfinite(bar.value):
        return "n/a"
    form = f"{sign}.{decimals}f"
    text = f"{bar.value:{form}}"
    return text if bar.low is None or bar.high is None else f"{text}  [{bar.low:{form}}, {bar.high:{form}}]"


def _bar(bar: Bar, text: str, x: Scale, middle: float, left: float) -> str:
    base, full = middle + 4, f"<title>{escaped(bar.label)}</title>"
    label = f'<text class="label" x="{left - 12:.1f}" y="{base:.1f}" text-anchor="end">{escaped(shortened(bar.label))}{full}</text>'
    value = f'<text class="value" x="{WIDTH - 8}" y="{base:.1f}" text-anchor="end">{text}</text>'
    if not math.isfinite(bar.value):
        return label + value
    start, end = sorted((x(0), x(bar.value)))
    kind, width = "bar accent" if bar.emphasis else "bar", max(end - start, 0.5)
    shape = f'<rect class="{kind}" x="{start:.1f}" y="{middle - 9:.1f}" width="{width:.1f}" height="18" rx="2"/>'
    whisker = ""
    if bar.low is not None and bar.high is not None:
        a, b, cap = x(bar.low), x(bar.high), f"{middle - 5:.1f}V{middle + 5:.1f}"
        whisker = f'<path class="whisker" d="M{a:.1f} {cap}M{a:.1f} {middle:.1f}H{b:.1f}M{b:.1f} {cap}"/>'
    return label + shape + whisker + value


def _vertical_grid(ticks: Sequence[float], x: Scale, top: float, bottom: float, step: float | None = None) -> str:
    gap = step or ticks[1] - ticks[0]
    lines = [f'<line class="grid" x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>' for t in ticks]
    texts = [f'<text class="tick" x="{x(t):.1f}" y="{bottom + 18:.1f}" text-anchor="middle">{tick_text(t, gap)}</text>' for t in ticks]
    return "".join(lines + texts)


def _reference_lines(references: Sequence[Reference], x: Scale, below: float) -> tuple[list[str], float]:
    """Draw each line from a name that starts at its upper end, down to `below` under the names, and return the names' height.

    From right to left, a name goes on the first level where it does not touch the name to its right: no line then crosses a name.
    """
    starts: list[float] = []  # of the leftmost name on each level
    placed: list[tuple[Reference, str, int]] = []
    for reference in sorted(references, key=lambda r: -r.value):
        text = f"{shortened(reference.label)} {reference.value:.3f}"
        end = x(reference.value) + 5 + _CHAR * len(text)
        level = next((i for i, start in enumerate(starts) if end + 8 < start), len(starts))
        starts[level : level + 1] = [x(reference.value)]
        placed.append((reference, text, level))
    head = 16.0 * len(starts)
    drawn = []
    for reference, text, level in placed:
        at, y = x(reference.value), head - 16 * level
        left = min(at + 5, WIDTH - _CHAR * len(text))
        drawn.append(f'<text class="ref-name" x="{left:.1f}" y="{y - 4:.1f}">{escaped(text)}</text>')
        drawn.append(f'<path class="ref" d="M{at:.1f} {y - 14:.1f}V{head + below:.1f}"/>')
    return drawn, head


def _legend(lines: Sequence[Line]) -> tuple[str, float]:
    parts, at, level = [], 72.0, 0
    for i, line in enumerate(lines):
        text = shortened(line.label, 48)
        width = 44 + _CHAR * len(text)
        if at + width > WIDTH and at > 72:
            at, level = 72.0, level + 1
        y = 14 + 20 * level
        parts.append(f'<path class="{_line_class(i, line)}" d="M{at:.1f} {y}h22"/><text class="label" x="{at + 28:.1f}" y="{y + 4}">{escaped(text)}</text>')
        at += width
    return "".join(parts), 20.0 * (level + 1) if lines else 0.0


def _line_class(i: int, line: Line) -> str:
    if line.dashed:
        return "line reference"
    return f"line s{i % _COLOURS}" + (" dashed" if i >= _COLOURS else "")


def _spans(line: Line, x: Scale, y: Scale, shift: float) -> str:
    """Draw a line's intervals, a little aside so that those of several lines do not hide each other."""
    shapes = []
    for px, (low, high) in zip(line.xs, line.spans, strict=False):
        if math.isfinite(low) and math.isfinite(high):
            at = x(px) + shift
            shapes.append(f'<path class="whisker" d="M{at - 4:.1f} {y(low):.1f}h8M{at:.1f} {y(low):.1f}V{y(high):.1f}M{at - 4:.1f} {y(high):.1f}h8"/>')
    return "".join(shapes)


def _path(line: Line, x: Scale, y: Scale) -> str:
    """Return the path's commands, lifting the pen where a value is missing."""
    commands, down = [], False
    for px, py in zip(line.xs, line.ys, strict=True):
        if not (math.isfinite(px) and math.isfinite(py)):
            down = False
            continue
        commands.append(f"{'L' if down else 'M'}{x(px):.1f} {y(py):.1f}")
        down = True
    return "".join(commands)
