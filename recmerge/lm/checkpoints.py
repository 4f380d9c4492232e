"""Checkpoints that are known to be whole: a marker with hashes, written last."""

import json
import os
from pathlib import Path

from recmerge.errors import ArtifactError
from recmerge.runs.directory import write_text
from recmerge.runs.manifest import sha256_file
from recmerge.runs.reporter import Reporter

MARKER = "complete.json"  # hashes of a checkpoint's files; its presence means that saving ended


def mark_complete(folder: Path) -> None:
    """Hash a checkpoint's files and say that it is whole."""
    for path in folder.iterdir():
        with path.open("rb") as f:
            os.fsync(f.fileno())
    hashes = {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.name != MARKER}
    write_text(folder / MARKER, json.dumps(hashes, indent=1))


def is_whole(folder: Path) -> bool:
    """Tell whether every file of a checkpoint is there with the bytes it was saved with."""
    try:
        hashes = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return bool(hashes) and all(sha256_file(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(folder: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(folder.name.rpartition("-")[2])


def list_checkpoints(parent: Path) -> list[Path]:
    """Return checkpoint folders, newest first."""
    if not parent.is_dir():
        return []
    found = [p for p in parent.glob("checkpoint-*") if p.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def newest_whole(parent: Path, reporter: Reporter) -> Path | None:
    """Find the checkpoint to go on from.

    Args:
        parent: The folder of checkpoints.
        reporter: Gets one warning where newer ones are torn.

    Returns:
        The newest whole checkpoint; None where none was ever completed, so training begins anew.

    Raises:
        ArtifactError: Checkpoints were completed, but all are damaged now.
    """
    found = list_checkpoints(parent)
    for folder in found:
        if is_whole(folder):
            newer = [p.name for p in found if step_of(p) > step_of(folder)]
            if newer:
                reporter.warn(f"{', '.join(newer)} is torn or damaged: going on from {folder.name}")
            return folder
    if any((p / MARKER).exists() for p in found):
        raise ArtifactError(f"all checkpoints in {parent} are damaged: {', '.join(p.name for p in found)}", fix="start again without --resume")
    if found:
        reporter.warn(f"{', '.join(p.name for p in found)} was never completed: starting from step 0")
    return None
