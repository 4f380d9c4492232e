"""`recmerge runs`: what exists, and from what it came."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recmerge.cli.apps import runs_app
from recmerge.cli.console import emit, emit_json
from recmerge.cli.options import Common, command
from recmerge.errors import ArtifactError, UsageError, printable, unknown_name
from recmerge.names import FAILURE, STAGE_DIRS, STARTED

if TYPE_CHECKING:
    from pathlib import Path

    from recmerge.runs.manifest import Manifest
    from recmerge.runs.resolve import Found
    from recmerge.runs.workspace import Workspace

_Stage = Annotated[str | None, typer.Option("--stage", help=f"Only runs of this stage: {', '.join(STAGE_DIRS)}.")]
_Name = Annotated[str, typer.Argument(help="A run: name, name@v002, stage/name or a path.", metavar="NAME")]


@command(runs_app, "list", run=False, config=False)
def list_(common: Common, stage: _Stage = None) -> None:
    """List every run of the workspace with its state; data sets are runs too."""
    from recmerge.runs.resolve import list_runs

    rows = [_row(folder, manifest, state) for folder, manifest, state in list_runs(common.workspace, _stages(stage))]
    if common.as_json:
        emit_json({"workspace": str(common.workspace.root), "runs": rows})
    elif not rows:
        common.reporter.say(f"no runs in {common.workspace.root}; `recmerge demo` makes some, or start with `recmerge data build`")
    else:
        emit(_columns([(r["ref"], r["state"], r["started"][:16].replace("T", " "), _seconds(r["seconds"]), r["about"]) for r in rows]))


@command(runs_app, "show", run=False, config=False)
def show(common: Common, name: _Name, stage: _Stage = None) -> None:
    """Show one run's manifest: config, inputs, outputs, versions, hardware, times."""
    from dataclasses import asdict

    found = _find(common.workspace, name, stage)
    document = found if isinstance(found, dict) else {"run_dir": str(found.path.resolve()), "state": "complete", **asdict(found.manifest)}
    if common.as_json:
        emit_json(document)
        return
    import yaml

    emit(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120).rstrip())


@command(runs_app, "lineage", run=False, config=False)
def lineage(common: Common, name: _Name, stage: _Stage = None) -> None:
    """Show what a run was made from, down to the raw files."""
    from dataclasses import asdict

    from recmerge.runs.lineage import trace, tree_lines

    found = _find(common.workspace, name, stage)
    if isinstance(found, dict):
        raise ArtifactError(f"run {found['run_dir']} is {found['state']}: it has no lineage", fix="run its command again")
    traced = trace(common.workspace, [found])
    root = common.workspace.relative(found.path)
    if common.as_json:
        nodes = [{**asdict(n), "label": n.label} for n in traced.nodes]
        emit_json({"run_dir": str(found.path.resolve()), "root": root, "nodes": nodes, "edges": [asdict(e) for e in traced.edges]})
    else:
        emit("\n".join(_flat(line) for line in tree_lines(traced, root)))


def _flat(line: str) -> str:
    """Return a line of a tree without control characters, its indent kept."""
    text = line.lstrip(" │├└─")
    return line[: len(line) - len(text)] + printable(text)


def _stages(stage: str | None) -> list[str]:
    if stage is None:
        return list(STAGE_DIRS)
    if stage not in STAGE_DIRS:
        raise UsageError(unknown_name("stage", stage, STAGE_DIRS), fix="name one of them")
    return [stage]


def _find(workspace: "Workspace", ref: str, stage: str | None) -> "Found | dict[str, Any]":
    """Resolve a run; one that never completed is described by what it left."""
    from recmerge.runs.resolve import list_runs, resolve

    try:
        return resolve(workspace, ref, _stages(stage))
    except ArtifactError:
        for folder, manifest, state in reversed(list_runs(workspace, _stages(stage))):
            row = _row(folder, manifest, state)
            if state != "complete" and ref in {row["ref"], row["ref"].partition("/")[2], row["name"], row["ref"].partition("@")[0]}:
                return {**row, **{k: _json(folder / f) for k, f in (("failure", FAILURE), ("record", STARTED))}}
        raise


def _row(folder: "Path", manifest: "Manifest | None", state: str) -> dict[str, Any]:
    """Describe a version folder in one flat record."""
    stage = next(s for s, below in STAGE_DIRS.items() if folder.parent.parent.as_posix().endswith(below))
    row: dict[str, Any] = {
        "ref": f"{stage}/{folder.parent.name}@{folder.name}",
        "stage": stage,
        "name": folder.parent.name,
        "version": folder.name,
        "state": state,
        "run_dir": str(folder.resolve()),
        "started": "",
        "seconds": None,
        "about": "",
    }
    if manifest is not None:
        facts: dict[str, Any] = {k: manifest.facts[k] for k in ("kind", "domains", "method") if k in manifest.facts}
        size = sum(o["bytes"] for o in manifest.outputs)
        row |= {"started": manifest.started, "seconds": manifest.seconds, "bytes": size, "facts": manifest.facts, "about": _about(facts)}
    elif state == "failed":
        failure = _json(folder / FAILURE)
        row |= {"state": failure.get("state", state), "about": printable(failure.get("error", ""))[:100]}
    return row


def _about(facts: dict[str, Any]) -> str:
    return " ".join("+".join(v) if isinstance(v, list) else str(v) for v in facts.values())


def _json(path: "Path") -> dict[str, Any]:
    import json

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f} s"


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
