"""Check a data set for leaks and damage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recmerge.data.checks import check_set
from recmerge.data.training_set import TrainingSet, read_training_set
from recmerge.errors import DataError
from recmerge.names import DOMAIN, STAGE_DIRS
from recmerge.runs.manifest import Manifest, list_outputs, read_manifest
from recmerge.runs.reporter import Reporter
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace

_SHOWN = 5


def load_set(ref: str, workspace: Workspace) -> tuple[Found, TrainingSet]:
    """Find and read a domain or mixed set.

    Args:
        ref: Its name, name@version or path.
        workspace: Where to look.

    Returns:
        The run, and the set.

    Raises:
        ArtifactError: There is no such complete set, or it cannot be read.
    """
    found = resolve(workspace, ref, ["build", "mix"], kind="data set", hint=f"recmerge data build {ref}, or recmerge data mix TARGET SOURCE")
    return found, read_training_set(found.path, found.manifest, workspace)


def refuse_no_rows(found: Sequence[Found]) -> None:
    """Refuse data sets that hold nothing to train on.

    Args:
        found: Built domains or mixed sets.

    Raises:
        DataError: One is made of test questions alone.
    """
    for data in found:
        if not data.manifest.facts.get("counts", {}).get("rows", 1):
            raise DataError(
                f"{data.label} has no training rows: it holds questions to be asked, nothing to train on, to mix or to export",
                fix=f"`recmerge infer {data.manifest.name} --adapter RUN_OR_FOLDER` asks them; build a domain from its purchases to train on it",
            )


def run_check(ref: str, workspace: Workspace, reporter: Reporter) -> dict[str, Any]:
    """Check one data set.

    Args:
        ref: Its name, name@version or path.
        workspace: Where to look.
        reporter: Where progress goes.

    Returns:
        What was checked, and notes with their counts.

    Raises:
        ArtifactError: There is no such set, or a file of it cannot be read.
        DataError: Something is wrong; the first five faults are named.
    """
    found, training_set = load_set(ref, workspace)
    reporter.say(f"checking {found.label}")
    report = check_set(training_set)
    faults = [*report.findings, *_changed_files(found.path, found.manifest)]
    for item in found.manifest.inputs:
        if item["role"].startswith(f"{DOMAIN}:"):
            folder = workspace.root / item["path"]
            manifest = read_manifest(folder)
            faults += _changed_files(folder, manifest) if manifest else [f"{folder} has no manifest"]
    if faults:
        more = f" (and {len(faults) - _SHOWN} more)" if len(faults) > _SHOWN else ""
        raise DataError(f"{found.label} has {len(faults)} faults: {'; '.join(faults[:_SHOWN])}{more}", fix=_remedy(found.manifest))
    for note, n in report.notes.items():
        reporter.say(f"{note.replace('_', ' ')}: {n:,}")
    return {
        "run_dir": str(found.path.resolve()),
        "name": found.manifest.name,
        "version": found.manifest.version,
        "outputs": [],
        "faults": 0,
        "rows": training_set.rows.height,
        "domains": sorted(training_set.domains),
        "notes": report.notes,
    }


def _changed_files(folder: Path, manifest: Manifest) -> list[str]:
    """Name the files that are not as the manifest recorded them."""
    now = {o["path"]: o["sha256"] for o in list_outputs(folder)}
    then = {o["path"]: o["sha256"] for o in manifest.outputs}
    changed = [f"{folder.name}/{path} of {manifest.name} was changed after it was written" for path in then if path in now and now[path] != then[path]]
    missing = [f"{folder.name}/{path} of {manifest.name} is missing" for path in then if path not in now]
    return [*changed, *missing]


def _remedy(manifest: Manifest) -> str:
    verb = "build" if manifest.stage == "build" else "mix"
    return f"make it again with `recmerge data {verb} ... --again`; it lies in {STAGE_DIRS[manifest.stage]}/{manifest.name}/{manifest.version}"
