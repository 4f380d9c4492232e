"""Lines over a common axis, drawn as inline SVG."""

import math
from collections.abc import Sequence

from recmerge.evaluation.report.charts import CHAR, WIDTH, Line, Scale, drawing, escaped, nice_ticks, shortened, tick_text, vertical_grid

_COLOURS = 6  # series colours of the style sheet; more series differ by dashes too


def line_chart(lines: Sequence[Line], x_axis: str, y_axis: str, *, from_zero: bool = True, log_x: bool = False, width: int = WIDTH) -> str:
    """Draw lines over a common axis, with a legend above them.

    Args:
        lines: What to draw.
        x_axis: What the horizontal axis measures, with its unit.
        y_axis: What the vertical axis measures, with its unit.
        from_zero: Start the vertical axis at zero.
        log_x: Equal distances are equal ratios; the ticks are the lines' own positions, all above zero.
        width: Of the drawing, in pixels at which its text has the size of the page's.

    Returns:
        One `<svg>` element.
    """
    points = [(px, py) for line in lines for px, py in zip(line.xs, line.ys, strict=True) if math.isfinite(px) and math.isfinite(py)]
    xs, ys = [p[0] for p in points] or [1.0, 2.0], [p[1] for p in points] or [0.0, 1.0]
    ys += [end for line in lines for span in line.spans for end in span if math.isfinite(end)]
    x_ticks = sorted(set(xs)) if log_x else nice_ticks(min(xs), max(xs), 8 if width >= WIDTH else 4)
    y_ticks = nice_ticks(min(0.0, *ys) if from_zero else min(ys), max(ys), 5)
    left, right, height = (72.0, 24.0, 280.0) if width >= WIDTH else (60.0, 14.0, 220.0)
    legend, head = _legend(lines, left, width)
    top = head + 12
    bottom = top + height
    x_low, x_high = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1  # the lines fill the width; ticks beyond it are left out

    def x(value: float) -> float:
        share = math.log(value / x_low) / math.log(x_high / x_low) if log_x else (value - x_low) / (x_high - x_low)
        return left + (width - left - right) * share

    def y(value: float) -> float:
        return bottom - height * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    parts = [legend, vertical_grid([t for t in x_ticks if x_low <= t <= x_high], x, top, bottom, step=1.0 if log_x else x_ticks[1] - x_ticks[0])]
    for tick in y_ticks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick_text(tick, y_ticks[1] - y_ticks[0])}</text>')
    for i, line in enumerate(lines):
        parts.append(f'<path class="{_line_class(i, line)}" d="{_path(line, x, y)}"><title>{escaped(line.label)}</title></path>')
        parts.append(_spans(line, x, y, 3.0 * (i - (len(lines) - 1) / 2)))
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{bottom:.1f}" y2="{bottom:.1f}"/>')
    parts.append(f'<text class="axis-name" x="{(left + width - right) / 2:.1f}" y="{bottom + 40:.1f}" text-anchor="middle">{escaped(x_axis)}</text>')
    parts.append(f'<text class="axis-name" transform="translate(16 {top + height / 2:.1f}) rotate(-90)" text-anchor="middle">{escaped(y_axis)}</text>')
    return drawing(width, bottom + 50, parts, f"Line chart: {y_axis} by {x_axis}")


def _legend(lines: Sequence[Line], left: float, room: float) -> tuple[str, float]:
    parts, at, level = [], left, 0
    for i, line in enumerate(lines):
        text = shortened(line.label, min(48, int((room - left - 44) / CHAR)))
        width = 44 + CHAR * len(text)
        if at + width > room and at > left:
            at, level = left, level + 1
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
