"""Curves over the one setting of a grid that is a number."""

from collections.abc import Sequence
from itertools import groupby

from recmerge.ablation.table import CHANCE, Row
from recmerge.evaluation.report import Line, LineChart

_LOG_FROM = 10  # a range whose ends are this far apart, as a ratio, is drawn by ratios


def setting_curves(rows: Sequence[Row], name: str) -> list[LineChart]:
    """Draw a metric of every system over a setting, where the grid varies one setting and that is a number.

    Args:
        rows: The table; where there are rows over all seeds, only those are drawn.
        name: The metric.

    Returns:
        One chart per target; none where the grid varies nothing, several settings, or words.
    """
    keys = {key for row in rows for key in row.settings}
    if len(keys) != 1:
        return []
    key = keys.pop()
    most = max(row.seeds for row in rows)
    usable = [r for r in rows if r.seeds == most and name in r.metrics and r.system != CHANCE]
    if not all(isinstance(r.settings.get(key), int | float) and not isinstance(r.settings[key], bool) for r in usable):
        return []
    charts = []
    for target, group in groupby(sorted(usable, key=lambda r: r.target), key=lambda r: r.target):
        members = list(group)
        lines = [_line(system, [r for r in members if r.system == system], key, name) for system in dict.fromkeys(r.system for r in members)]
        xs = [x for line in lines for x in line.xs]
        if len(set(xs)) > 1:
            seeds = f"mean of {most} seeds, " if most > 1 else ""
            note = f"{seeds}whiskers: 95 % percentile bootstrap over users{' and seeds' if most > 1 else ''}."
            log_x = min(xs) > 0 and max(xs) / min(xs) >= _LOG_FROM
            charts.append(LineChart(f"{name.upper()} on {target} by {key}", lines, key, f"{name.upper()} (0 to 1)", note[0].upper() + note[1:], log_x=log_x))
    return charts


def _line(system: str, rows: Sequence[Row], key: str, name: str) -> Line:
    ordered = sorted(rows, key=lambda r: float(r.settings[key]))
    figures = [r.metrics[name] for r in ordered]
    spans = [(f["ci95"][0], f["ci95"][1]) for f in figures]
    return Line(system, [float(r.settings[key]) for r in ordered], [f["value"] for f in figures], spans=spans)
