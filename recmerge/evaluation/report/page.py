"""Sections in, one HTML page out: no script, no request, light and dark."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import recmerge
from recmerge.errors import printable
from recmerge.evaluation.report.charts import NARROW, WIDTH, Bar, Line, Reference, bar_chart
from recmerge.evaluation.report.graph import Node, lineage_chart
from recmerge.evaluation.report.heat import heat_map
from recmerge.evaluation.report.lines import line_chart
from recmerge.evaluation.report.user_cards import Users

_TEMPLATE = "report.html.j2"
_INTERVAL = re.compile(r"([-+]?[\d.]+) (\[[-+]?[\d.]+, [-+]?[\d.]+\])(.*)")


@dataclass(frozen=True)
class Note:
    """A paragraph.

    Args:
        text: Plain text; markup in it is shown as it stands.
        title: A heading above it, or empty.
        warning: Set it off as something not to be missed.
    """

    text: str
    title: str = ""
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        title: Its heading.
        columns: The columns' names.
        rows: Cells, shown as text; numbers come already rounded.
        note: What a reader must know to read it.
        emphasis: Indices of rows drawn bold.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""
    emphasis: Sequence[int] = ()


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars from zero; see `charts.bar_chart`.

    Args:
        title: Its heading.
        bars: From top to bottom.
        axis: What the axis measures, with its unit.
        references: Dashed lines such as the value of a random order.
        note: What the whiskers are, how many users stand behind a bar.
        decimals: Of the values written beside the bars.
        signed: The bars are differences: write a plus before positive values.
    """

    title: str
    bars: Sequence[Bar]
    axis: str
    references: Sequence[Reference] = ()
    note: str = ""
    decimals: int = 3
    signed: bool = False

    @property
    def svg(self) -> Markup:
        """The drawing, and the one a narrow screen shows in its place; every text in them is escaped."""
        drawn = [bar_chart(self.bars, self.axis, self.references, self.decimals, signed=self.signed, width=width) for width in (WIDTH, NARROW)]
        return Markup("".join(drawn))  # noqa: S704


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis; see `charts.line_chart`.

    Args:
        title: Its heading.
        lines: What to draw.
        x_axis: What the horizontal axis measures, with its unit.
        y_axis: What the vertical axis measures, with its unit.
        note: What a reader must know to read it.
        from_zero: Start the vertical axis at zero.
        log_x: Equal distances of the horizontal axis are equal ratios.
    """

    title: str
    lines: Sequence[Line]
    x_axis: str
    y_axis: str
    note: str = ""
    from_zero: bool = True
    log_x: bool = False

    @property
    def svg(self) -> Markup:
        """The drawing, and the one a narrow screen shows in its place; every text in them is escaped."""
        drawn = [line_chart(self.lines, self.x_axis, self.y_axis, from_zero=self.from_zero, log_x=self.log_x, width=width) for width in (WIDTH, NARROW)]
        return Markup("".join(drawn))  # noqa: S704


@dataclass(frozen=True)
class Lineage:
    """A graph of what was made from what; see `graph.lineage_chart`.

    Args:
        title: Its heading.
        nodes: The boxes.
        edges: (from, to) ids.
        columns: The columns' headings.
        note: What a reader must know to read it.
    """

    title: str
    nodes: Sequence[Node]
    edges: Sequence[tuple[str, str]]
    columns: Sequence[str]
    note: str = ""

    @property
    def svg(self) -> Markup:
        """The drawing; every text in it is escaped."""
        return Markup(lineage_chart(self.nodes, self.edges, self.columns))  # noqa: S704


@dataclass(frozen=True)
class HeatMap:
    """Numbers by row and column as coloured cells; see `heat.heat_map`.

    Args:
        title: Its heading.
        rows: Names, from top to bottom.
        columns: Names, from left to right.
        values: One number per row and column; None: there is none.
        low: The value without colour; below zero: full colour on the negative side.
        high: The value of full colour.
        note: What the colours mean.
        decimals: Of the numbers.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    low: float = 0.0
    high: float = 1.0
    note: str = ""
    decimals: int = 2

    @property
    def svg(self) -> Markup:
        """The drawing; every text in it is escaped."""
        return Markup(heat_map(self.rows, self.columns, self.values, self.low, self.high, self.decimals))  # noqa: S704


Section = Note | Table | BarChart | LineChart | Lineage | HeatMap | Users


def render_report(title: str, sections: Sequence[Section], *, subtitle: str = "", facts: Sequence[tuple[str, str]] = (), footer: str = "") -> str:
    """Return one self-contained HTML page.

    Args:
        title: The page's heading.
        sections: From top to bottom.
        subtitle: A line below the heading.
        facts: (name, value) tiles below it: the figures a reader should see first.
        footer: A line at the end.

    Returns:
        The page's text; it loads nothing, so it can be mailed or kept.
    """
    shown = [{"kind": type(section).__name__, "section": section} for section in sections]
    return _template().render(title=title, subtitle=subtitle, facts=facts, sections=shown, footer=footer, version=recmerge.__version__) + "\n"


@lru_cache
def _template() -> jinja2.Template:
    folder = Path(recmerge.__file__).parent / "assets" / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters["whole_interval"] = _whole_interval
    return environment.get_template(_TEMPLATE)


def _whole_interval(cell: Any) -> Any:
    """Let no line end inside the interval behind a figure."""
    found = _INTERVAL.fullmatch(str(cell))
    return Markup('{} <span class="whole">{}</span>{}').format(*found.groups()) if found else str(cell)


def _shown(value: Any) -> Any:
    """Make control characters of names and titles visible; drawings are safe already."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
