"""An ablation's figures as a folder of small text files to keep beside the code: tables, metrics, and what they come from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recmerge.ablation.graph import Graph, Outcome
from recmerge.ablation.sweep import TABLE_CSV, TABLE_MD, Swept
from recmerge.errors import ArtifactError
from recmerge.names import METRICS_FILE
from recmerge.runs.directory import write_text
from recmerge.runs.manifest import read_manifest

METRICS_SUFFIX = f".{METRICS_FILE}"
SOURCE_FILE = "source.json"


def publish_figures(swept: Swept, graph: Graph, folder: Path) -> str:
    """Write an ablation's tables, its evaluations' metrics and a note of their origin; nothing in them names a path.

    Where a command failed, what was published before stays.

    Args:
        swept: The finished ablation.
        graph: Its cells.
        folder: Where a folder of the ablation's name is made, or brought up to date.

    Returns:
        What was done, in words. The folder then holds `table.csv`, `table.md`, one `<evaluation>.metrics.json` each, and `source.json` with the
        content hash, code version, seconds and (for training) facts of every command's run.

    Raises:
        ArtifactError: The folder cannot be written, or a run was removed meanwhile.
    """
    home = folder / swept.done.manifest.name
    if (home / TABLE_CSV).is_file() and not all(outcome.complete for outcome in swept.outcomes.values()):
        return f"not published: some commands failed, and what stands in {home} is kept"
    metrics = {f"{graph.cells[key].name}{METRICS_SUFFIX}": _run_dir(o) / METRICS_FILE for key, o in swept.outcomes.items() if _is_eval(key, graph, o)}
    source = json.dumps(_source(swept, graph), indent=1, ensure_ascii=False) + "\n"
    try:
        home.mkdir(parents=True, exist_ok=True)
        for name in (TABLE_CSV, TABLE_MD):
            write_text(home / name, (swept.done.path / name).read_text(encoding="utf-8"))
        for name, path in metrics.items():
            write_text(home / name, path.read_text(encoding="utf-8"))
        write_text(home / SOURCE_FILE, source)
        for old in home.glob(f"*{METRICS_SUFFIX}"):
            if old.name not in metrics:
                old.unlink()
    except OSError as error:
        raise ArtifactError(f"the figures cannot be published in {home}: {error.strerror or error}", fix="give a folder that can be written") from error
    return f"published in {home}"


def _is_eval(key: str, graph: Graph, outcome: Outcome) -> bool:
    return graph.cells[key].kind == "eval" and outcome.complete


def _run_dir(outcome: Outcome) -> Path:
    return Path(outcome.result["run_dir"])


def _source(swept: Swept, graph: Graph) -> dict[str, Any]:
    mine = swept.done.manifest
    runs = {cell.key: _origin(cell.kind, swept.outcomes[cell.key]) for cell in graph}
    about = {"ablation": mine.name, "identity": mine.identity, "git": mine.git, "packages": mine.packages, "hardware": mine.hardware}
    return {**about, "runs": runs}


def _origin(kind: str, outcome: Outcome) -> Mapping[str, Any]:
    """Return what identifies a cell's run; of a training also what it did."""
    if not outcome.complete:
        return {"state": outcome.state}
    manifest = read_manifest(_run_dir(outcome))
    if manifest is None:
        raise ArtifactError(f"{_run_dir(outcome)} was removed while the figures were published", fix="run the same command again")
    origin = {
        "version": manifest.version,
        "content_sha256": manifest.content_sha256,
        "code_version": manifest.code_version,
        "git_commit": manifest.git.get("commit"),
        "seconds": manifest.seconds,
    }
    return origin | ({"facts": manifest.facts} if kind == "train" else {})
