"""An ablation from its graph to its published tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recmerge.ablation.engines.local import RunCell
from recmerge.ablation.graph import Graph, Outcome
from recmerge.ablation.page import HONEST, render_page
from recmerge.ablation.pooled import pool_seeds
from recmerge.ablation.table import Row, as_csv, as_markdown, build_rows
from recmerge.config.ablate import AblateConfig
from recmerge.errors import ArtifactError, GateError, Interrupted
from recmerge.names import REPORT_FILE
from recmerge.runs.directory import Run, write_text
from recmerge.runs.manifest import Input, RunSpec, code_version, read_manifest
from recmerge.runs.reporter import Reporter
from recmerge.runs.resolve import Found
from recmerge.runs.workspace import Workspace
from recmerge.stages.execute import Done, Plan, execute

TABLE_CSV, TABLE_MD, CELLS_FILE = "table.csv", "table.md", "cells.json"


@dataclass(frozen=True)
class Swept:
    """A finished ablation.

    Args:
        done: Its run.
        rows: Its table.
        outcomes: What became of every cell.
    """

    done: Done
    rows: Sequence[Row]
    outcomes: Mapping[str, Outcome]

    def check(self) -> None:
        """Pass if every cell is complete.

        Raises:
            GateError: Some cells failed; the line counts them and shows the first.
        """
        failed = [(key, o) for key, o in self.outcomes.items() if o.state == "failed"]
        skipped = sum(o.state == "skipped" for o in self.outcomes.values())
        if failed:
            key, first = failed[0]
            what = f"{len(failed)} of {len(self.outcomes)} commands failed and {skipped} were skipped; first '{key}': {first.error.partition('; fix: ')[0]}"
            raise GateError(what, fix="mend the cause and run the same command again: only what is missing is done")


def publish(config: AblateConfig, graph: Graph, outcomes: Mapping[str, Outcome], workspace: Workspace, reporter: Reporter, *, again: bool = False) -> Swept:
    """Write the tables and the report of an ablation whose cells have run.

    Args:
        config: Its settings.
        graph: Its cells.
        outcomes: What became of them.
        workspace: Where the run goes.
        reporter: Where progress goes.
        again: Make a new version even if nothing changed.

    Returns:
        The run, its rows and outcomes; the seconds of cells that were done before are those of the earlier run.

    Raises:
        ArtifactError: No cell at all is complete.
    """
    if not any(o.complete for o in outcomes.values()):
        first = next(o.error for o in outcomes.values() if o.error)
        raise ArtifactError(f"no command of the ablation succeeded; the first said: {first}", fix="mend the cause and run the same command again")
    inputs = _inputs(outcomes, workspace)
    rows = [*build_rows(graph, outcomes, config.baseline), *pool_seeds(graph, outcomes, config.baseline)]
    spec = RunSpec(
        stage="ablate",
        name=config.name,
        config={**config.resolved(), "cells": {c.key: _lasting(outcomes[c.key]) for c in graph}},
        inputs=inputs,
        code=code_version("ablation", "evaluation/report", "assets/templates/report.html.j2"),
    )
    plan = Plan(spec, (TABLE_CSV, TABLE_MD, REPORT_FILE, CELLS_FILE))
    work = partial(_write, title=f"Ablation {config.name}", rows=rows, graph=graph, outcomes=outcomes)
    return Swept(execute(plan, work, workspace, reporter, again=again), rows, outcomes)


def sweep(
    config: AblateConfig, graph: Graph, engine: Any, run_cell: RunCell, workspace: Workspace, reporter: Reporter, *, jobs: int = 1, again: bool = False
) -> Swept:
    """Run every cell of an ablation and publish what came out.

    Args:
        config: Its settings.
        graph: Its cells.
        engine: One of `engines.ENGINES`.
        run_cell: Runs one command.
        workspace: Where the runs live.
        reporter: Where progress goes.
        jobs: Commands at a time.
        again: Make a new version of the tables even if nothing changed.

    Returns:
        The finished ablation; `check` tells whether every cell is complete.

    Raises:
        Interrupted: A signal came; what is complete stays so.
    """
    try:
        outcomes = engine(graph, run_cell, workspace, reporter, jobs)
    except Interrupted as stop:
        raise Interrupted(stop.signum, stop.what, fix="run the same command again: it goes on where it stopped") from stop
    return publish(config, graph, outcomes, workspace, reporter, again=again)


def _inputs(outcomes: Mapping[str, Outcome], workspace: Workspace) -> tuple[Input, ...]:
    """Record the cells' runs; take the seconds of the work from their manifests."""
    inputs = []
    for key, outcome in outcomes.items():
        if not outcome.complete:
            continue
        path = Path(outcome.result["run_dir"])
        manifest = read_manifest(path)
        if manifest is None:
            raise ArtifactError(f"{path} was removed while the ablation ran", fix="run the same command again")
        inputs.append(Found(path, manifest).as_input(key, workspace))
        if outcome.state == "already done":
            outcome.seconds = manifest.seconds
    return tuple(inputs)


def _lasting(outcome: Outcome) -> str:
    """Return a cell's state without whether it was done just now or before."""
    return "done" if outcome.complete else f"{outcome.state} {outcome.error}"


def _write(run: Run, *, title: str, rows: Sequence[Row], graph: Graph, outcomes: Mapping[str, Outcome]) -> None:
    cells = []
    for cell in graph:
        outcome = outcomes[cell.key]
        about = {"key": cell.key, "kind": cell.kind, "command": ["recmerge", *outcome.words], "needs": [*cell.inputs]}
        cells.append({**about, **_record(outcome, run.workspace)})
    write_text(run.path / CELLS_FILE, json.dumps({"cells": cells}, indent=2, ensure_ascii=False) + "\n")
    write_text(run.path / TABLE_CSV, as_csv(rows))
    write_text(run.path / TABLE_MD, as_markdown(title, rows, HONEST))
    write_text(run.path / REPORT_FILE, render_page(title, rows, graph, outcomes, run.workspace))
    run.volatile.update({CELLS_FILE, REPORT_FILE})  # they hold seconds
    states = [o.state for o in outcomes.values()]
    run.facts.update(kind="ablation", counts=graph.counts(), failed=states.count("failed"), skipped=states.count("skipped"), rows=[asdict(r) for r in rows])


def _record(outcome: Outcome, workspace: Workspace) -> dict[str, Any]:
    folder = outcome.result.get("run_dir")
    return {
        "state": outcome.state,
        "run_dir": workspace.relative(Path(folder)) if folder else None,
        "seconds": round(outcome.seconds, 3),
        "error": outcome.error or None,
    }
