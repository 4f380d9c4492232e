"""Write a data set in another tool's format."""

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recmerge.data.atomic_files import export_recbole
from recmerge.data.exports import Written, export_llamafactory, export_trl
from recmerge.data.training_set import TrainingSet
from recmerge.errors import ConflictError, ResourceError, UsageError, unknown_name
from recmerge.runs.reporter import Reporter
from recmerge.runs.workspace import Workspace
from recmerge.stages.check import load_set, refuse_no_rows

FORMATS: dict[str, Callable[[TrainingSet, Path], Written]] = {
    "llamafactory": export_llamafactory,
    "recbole": export_recbole,
    "trl": export_trl,
}


def run_export(ref: str, form: str, out: Path | None, workspace: Workspace, reporter: Reporter, *, force: bool = False) -> dict[str, Any]:
    """Export one data set.

    Args:
        ref: Its name, name@version or path.
        form: A name of `FORMATS`.
        out: The folder to make; None: data/exports/<name>-<version>-<format> in the workspace.
        workspace: Where to look.
        reporter: Where progress goes.
        force: Write into a folder that holds something already; files of the same names are replaced.

    Returns:
        The set, the files written, and counts, see `Written`.

    Raises:
        UsageError: The format is unknown.
        ConflictError: The folder exists and is not empty, or is a file.
        ArtifactError: There is no such set.
        DataError: It has no training rows.
        ResourceError: The disk is full; `out` is as it was.
    """
    if form not in FORMATS:
        raise UsageError(unknown_name("format", form, FORMATS), fix="--format one of these")
    found, training_set = load_set(ref, workspace)
    refuse_no_rows([found])
    out = out or workspace.root / "data" / "exports" / f"{found.manifest.name}-{found.manifest.version}-{form}"
    if out.exists() and not out.is_dir():
        raise ConflictError(f"{out} is a file", fix="give another --out folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConflictError(f"{out} is not empty", fix="give another --out folder, or --force to write into it")
    reporter.say(f"exporting {found.label} for {form}")
    beside = out if out.is_dir() else out.parent  # on the same disk, so that whole files can be moved
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=beside) as staging:
        counted = _write(form, training_set, Path(staging), out)
        written = sorted(p.relative_to(staging) for p in Path(staging).rglob("*") if p.is_file())
        for path in written:
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(staging) / path).replace(out / path)
    _tell(counted, form, reporter)
    return {
        "run_dir": str(found.path.resolve()),
        "version": found.manifest.version,
        "format": form,
        "out": str(out.resolve()),
        "counts": counted.as_dict(),
        "outputs": [{"path": str((out / p).resolve()), "bytes": (out / p).stat().st_size} for p in written],
    }


def _write(form: str, training_set: TrainingSet, staging: Path, out: Path) -> Written:
    try:
        return FORMATS[form](training_set, staging)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        have, free = sum(p.stat().st_size for p in staging.rglob("*") if p.is_file()), shutil.disk_usage(staging).free
        raise ResourceError(
            f"the disk is full: the export into {out} needs more than {have:,} bytes, {free:,} are free", fix="free some space or give another --out folder"
        ) from error


def _tell(counted: Written, form: str, reporter: Reporter) -> None:
    """Say what the other tool might do to the data without a word."""
    if counted.longest:
        setting = {"llamafactory": "cutoff_len", "trl": "max_length"}[form]
        reporter.say(f"the longest of {counted.rows:,} rows has {counted.longest:,} characters: set {setting} above its tokens, longer rows are cut")
    if counted.control:
        reporter.warn(f"{counted.control} titles hold text such as <|im_end|> that the other tool may read as a control token; recmerge itself never does")
    if counted.renamed:
        reporter.say(f"{counted.renamed} ids are percent-encoded, for RecBole would split them or take them for missing")
