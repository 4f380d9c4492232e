"""The report of an ablation: figures, training curves, lineage, and every command."""

import json
import shlex
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from recmerge.ablation.curves import setting_curves
from recmerge.ablation.graph import Graph, Outcome
from recmerge.ablation.table import CHANCE, Row, difference_cells, metric_names, shown_cells
from recmerge.evaluation.report import Bar, BarChart, Line, LineChart, Note, Reference, Table, render_report
from recmerge.evaluation.report.page import Section
from recmerge.evaluation.report.provenance import lineage_section
from recmerge.names import LOSS_FILE, VALID_LOSS_FILE
from recmerge.runs.lineage import trace
from recmerge.runs.manifest import package_versions, read_manifest
from recmerge.runs.resolve import Found
from recmerge.runs.workspace import Workspace

_BARS = ("ndcg@1", "ndcg@5")
_COMPARED = ("ndcg@1", "ndcg@5")
_SPREAD = "Whiskers and brackets: 95 % percentile bootstrap over users."
HONEST = (
    "Every user has one target among the same stored candidates for every system; ties count as the expected metric over all their orders. "
    "A difference whose interval holds zero shows nothing either way."
)


def render_page(title: str, rows: Sequence[Row], graph: Graph, outcomes: Mapping[str, Outcome], workspace: Workspace) -> str:
    """Return the report as one HTML page.

    Args:
        title: Its heading.
        rows: The table.
        graph: The cells.
        outcomes: What became of them.
        workspace: Where their runs live.

    Returns:
        The page's text.
    """
    sections: list[Section] = [Note(HONEST, title="How to read this"), *_failures(outcomes)]
    for name in _BARS:
        sections += setting_curves(rows, name)
    for name in _BARS:
        sections += _bar_charts(rows, name)
    sections += _tables(rows)
    sections += _loss_curves(graph, outcomes)
    sections += _lineages(title, graph, outcomes, workspace)
    sections.append(_commands(graph, outcomes))
    sections.append(Table("Versions", ["package", "version"], [[k, v] for k, v in package_versions().items()]))
    counts = graph.counts()
    seconds = sum(o.seconds for o in outcomes.values())
    facts = [
        ("systems", str(len({r.system for r in rows if r.system != CHANCE}))),
        ("adapters trained", str(counts["train"])),
        ("commands", str(len(graph))),
        ("computing time", f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"),
    ]
    targets = ", ".join(dict.fromkeys(r.target for r in rows))
    return render_report(title, sections, subtitle=f"target: {targets}", facts=facts)


def _tables(rows: Sequence[Row]) -> list[Section]:
    names = metric_names(rows)
    columns, cells = shown_cells(rows, names, compare=False)
    emphasis = [i for i, row in enumerate(rows) if row.is_baseline]
    tables: list[Section] = [Table("All systems", columns, cells, f"{_SPREAD} Bold: the baseline. table.csv holds every figure in full.", emphasis=emphasis)]
    columns, cells = difference_cells(rows, [n for n in _COMPARED if n in names])
    if cells:
        note = "System minus baseline, by a paired bootstrap over the same users; p is two-sided and not adjusted for the number of systems."
        tables.append(Table("Differences to the baseline", columns, cells, note))
    return tables


def _failures(outcomes: Mapping[str, Outcome]) -> list[Section]:
    failed = [f"{key}: {o.error}" for key, o in outcomes.items() if o.state == "failed"]
    return [Note("; ".join(failed), title="Some commands failed; their rows are empty", warning=True)] if failed else []


def _bar_charts(rows: Sequence[Row], name: str) -> list[Section]:
    """Draw one chart per target and point, with chance as a line across it."""
    charts: list[Section] = []
    for (target, point), group in groupby(rows, key=lambda r: (r.target, r.point)):
        members = list(group)
        figures = [(r, r.metrics[name]) for r in members if name in r.metrics and r.system != CHANCE]
        bars = [Bar(r.system, f["value"], low=f["ci95"][0], high=f["ci95"][1], emphasis=r.is_baseline) for r, f in figures]
        if not bars:
            continue
        references = [Reference("random order", r.metrics[name]["value"]) for r in members if r.system == CHANCE]
        users = next(r.n_users for r in members if r.n_users)
        place = f"{target}{f', {point}' if point else ''}"
        charts.append(BarChart(f"{name.upper()} on {place}", bars, f"{name.upper()} (0 to 1, mean over {users:,} users)", references, _SPREAD))
    return charts


def _loss_curves(graph: Graph, outcomes: Mapping[str, Outcome]) -> list[Section]:
    notes = {
        LOSS_FILE: (
            "Training loss",
            "Mean training loss of the logged steps. A hybrid's loss is over two domains, so curves of different sets are not a ranking.",
        ),
        VALID_LOSS_FILE: ("Validation loss", "Of the domains an adapter is trained on, each alike; the adapter of the lowest point is kept."),
    }
    charts: list[Section] = []
    for file, (title, note) in notes.items():
        lines = []
        for cell in graph:
            if cell.kind == "train" and outcomes[cell.key].complete:
                records = _read_losses(Path(outcomes[cell.key].result["run_dir"]) / file)
                if records:
                    lines.append(Line(cell.name, [float(r["step"]) for r in records], [float(r["loss"]) for r in records]))
        if lines:
            charts.append(LineChart(title, lines, "optimiser step", "loss (nats per answer token)", note))
    return charts


def _read_losses(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [r for r in records if isinstance(r.get("loss"), int | float)]


def _lineages(title: str, graph: Graph, outcomes: Mapping[str, Outcome], workspace: Workspace) -> list[Section]:
    """Draw where the rankings came from, one graph per target."""
    tops: dict[str, list[Found]] = {}
    for cell in graph:
        if cell.kind == "infer" and outcomes[cell.key].complete:
            folder = Path(outcomes[cell.key].result["run_dir"])
            manifest = read_manifest(folder)
            if manifest is not None:
                tops.setdefault(cell.labels["target"], []).append(Found(folder, manifest))
    return [lineage_section(trace(workspace, runs), title, f"From what the figures on {target} came") for target, runs in tops.items()]


def _commands(graph: Graph, outcomes: Mapping[str, Outcome]) -> Table:
    rows = [[shlex.join(["recmerge", *outcomes[c.key].words]), outcomes[c.key].state, f"{outcomes[c.key].seconds:.1f}"] for c in graph]
    note = "Typed one after the other in this workspace they give the same runs. Seconds: of the run that did the work."
    return Table("The commands", ["command", "state", "seconds"], rows, note)
