"""`recmerge demo`: the whole job, offline, on what ships with the package."""

import os
from pathlib import Path
from typing import Annotated

import typer

from recmerge.cli.apps import app
from recmerge.cli.options import Common, command
from recmerge.errors import UsageError


@command(app, "demo", run=False, config=False)
def demo(
    common: Common,
    out: Annotated[Path, typer.Option("--out", help="The workspace that is made: data/, runs/ and report.html.")] = Path("demo"),
    full: Annotated[bool, typer.Option("--full", help="Also the single sources, their plain average, and one adapter on all data.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every command of it; write nothing.")] = False,
) -> None:
    """Build, train, merge, rank and evaluate the bundled sample, offline; every command is shown as it runs."""
    from recmerge.cli.ablate import load_graph, preview, run_graph, show, summary
    from recmerge.names import REPORT_FILE
    from recmerge.runs.directory import write_text

    if common.workspace_dir is not None and not os.environ.get("RECMERGE_WORKSPACE"):
        raise UsageError(f"--workspace {common.workspace_dir} does not go with demo", fix="give --out DIR")
    os.environ["HF_HUB_OFFLINE"] = "1"  # before any Hugging Face package is imported
    common.workspace_dir = out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is not a folder", fix="give a folder, or none to use ./demo")
    common.config_ref = "demo_full" if full else "demo"
    config, graph = load_graph(common)
    if dry_run:
        return preview(common, graph)
    common.reporter.say(f"{len(graph)} commands in {common.workspace.root}; interrupted, the same command goes on where it stopped")
    swept = run_graph(common, config, graph)
    show(common, swept)
    report = common.workspace.root / REPORT_FILE
    write_text(report, (swept.done.path / REPORT_FILE).read_text(encoding="utf-8"))
    common.reporter.say(f"open {report}")
    common.finish(swept.done, f"recmerge runs lineage sports-weaverec --stage infer --workspace {out}", **{**summary(swept), "report": str(report)})
    swept.check()
    return None
