"""`recmerge ablate`: a grid of systems, each command run once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmerge.cli.apps import app
from recmerge.cli.console import emit, emit_json
from recmerge.cli.options import Common, command
from recmerge.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from recmerge.ablation.graph import Graph
    from recmerge.ablation.sweep import Swept
    from recmerge.config.ablate import AblateConfig

_TERMINAL_METRICS = ("ndcg@1", "ndcg@5", "hr@5", "mrr")  # the report shows all


@command(app, "ablate")
def ablate(
    common: Common,
    file: Annotated[str | None, typer.Argument(help="A YAML file or the name of a shipped ablation; --config is the same.", metavar="FILE")] = None,
    engine: Annotated[str, typer.Option("--engine", help="What runs the commands: local.")] = "local",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Commands at a time; more than one are processes of their own.")] = 1,
    publish: Annotated[Path | None, typer.Option("--publish", help="Also keep tables and metrics in a folder of the ablation's name in here.")] = None,
) -> None:
    """Run a grid of systems, targets, seeds and settings; what is done already is not done again."""
    from recmerge.ablation.engines import ENGINES

    if engine not in ENGINES:
        raise UsageError(unknown_name("engine", engine, ENGINES), fix="leave --engine out")
    if file is not None and common.config_ref is not None and file != common.config_ref:
        raise UsageError(f"FILE '{file}' and --config '{common.config_ref}' differ", fix="give one of them")
    common.config_ref = file or common.config_ref
    config, graph = load_graph(common)
    if common.dry_run:
        return preview(common, graph)
    swept = run_graph(common, config, graph, engine, jobs)
    show(common, swept)
    if publish is not None:
        from recmerge.ablation.published import publish_figures

        common.reporter.say(publish_figures(swept, graph, publish))
    common.finish(swept.done, "recmerge runs list", **summary(swept))
    swept.check()
    return None


def load_graph(common: Common) -> "tuple[AblateConfig, Graph]":
    """Read an ablation's YAML and plan its commands.

    Args:
        common: The call's shared options; `config_ref` names the YAML, `name` replaces its name.

    Returns:
        The settings and the graph.

    Raises:
        UsageError: No YAML is named.
    """
    from recmerge.ablation.plan import plan_graph
    from recmerge.config.ablate import AblateConfig
    from recmerge.config.loader import find_config, shipped_names

    if common.config_ref is None:
        raise UsageError("give the ablation's FILE", fix=f"a YAML file or one of: {', '.join(shipped_names('ablate'))}")
    config = common.load(AblateConfig, "ablate", {"name": common.name})
    return config, plan_graph(config, find_config("ablate", common.config_ref).resolve().parent)


def preview(common: Common, graph: "Graph") -> None:
    """Answer `--dry-run`: every command, how many of each kind, and how many are done.

    Args:
        common: The call's shared options.
        graph: The cells.
    """
    import shlex

    from recmerge.ablation.engines.local import count_done
    from recmerge.cli.cells import InProcess

    done = count_done(graph, InProcess(common.workspace.root, quiet=True), common.workspace)
    commands = [shlex.join(["recmerge", *words]) for words in graph.commands()]
    if common.as_json:
        return emit_json({"cells": graph.counts(), "done": done, "commands": commands})
    counts = ", ".join(f"{n} {kind}" for kind, n in graph.counts().items())
    return emit("\n".join([*commands, f"# {len(graph)} commands ({counts}), {done} already done"]))


def run_graph(common: Common, config: "AblateConfig", graph: "Graph", engine: str = "local", jobs: int = 1) -> "Swept":
    """Run an ablation with its progress on stderr.

    Args:
        common: The call's shared options.
        config: The settings.
        graph: The cells.
        engine: A name of `ENGINES`.
        jobs: Commands at a time.

    Returns:
        What came out.
    """
    from recmerge.ablation.engines import ENGINES
    from recmerge.ablation.sweep import sweep
    from recmerge.cli.cells import InProcess, Subprocesses

    root, quiet = common.workspace.root, common.reporter.quiet
    run_cell = InProcess(root, quiet=quiet) if jobs == 1 else Subprocesses(root, jobs, quiet=quiet)
    return sweep(config, graph, ENGINES[engine], run_cell, common.workspace, common.reporter, jobs=jobs, again=common.again)


def show(common: Common, swept: "Swept") -> None:
    """Print the table and where the report is."""
    from recmerge.ablation.table import metric_names, shown_cells

    known = metric_names(swept.rows)
    names = [n for n in _TERMINAL_METRICS if n in known] or known[:1]
    columns, cells = shown_cells(swept.rows, names)
    common.reporter.table(f"Ablation {swept.done.manifest.name}", columns, cells)
    common.reporter.say(f"report: {swept.done.path / 'report.html'}")


def summary(swept: "Swept") -> dict[str, Any]:
    """Return what `--json` adds: the states of all cells and the table's rows."""
    from dataclasses import asdict

    states = [o.state for o in swept.outcomes.values()]
    return {
        "cells": {state: states.count(state) for state in ("done", "already done", "failed", "skipped")},
        "failed": {key: o.error for key, o in swept.outcomes.items() if o.state == "failed"},
        "table": [asdict(row) for row in swept.rows],
        "report": str(swept.done.path / "report.html"),
    }
