"""Write a data set in another tool's format."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from recmerge.data.exports import FORMATS
from recmerge.errors import ConflictError, UsageError, unknown_name
from recmerge.runs.reporter import Reporter
from recmerge.runs.workspace import Workspace
from recmerge.stages.check import load_set


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
        The set and the files written.

    Raises:
        UsageError: The format is unknown.
        ConflictError: The folder exists and is not empty, or is a file.
        ArtifactError: There is no such set.
    """
    if form not in FORMATS:
        raise UsageError(unknown_name("format", form, FORMATS), fix="--format one of these")
    found, training_set = load_set(ref, workspace)
    out = out or workspace.root / "data" / "exports" / f"{found.manifest.name}-{found.manifest.version}-{form}"
    if out.exists() and not out.is_dir():
        raise ConflictError(f"{out} is a file", fix="give another --out folder")
    if out.is_dir() and any(out.iterdir()) and not force:
        raise ConflictError(f"{out} is not empty", fix="give another --out folder, or --force to write into it")
    reporter.say(f"exporting {found.label} for {form}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as staging:
        FORMATS[form](training_set, Path(staging))
        written = sorted(p.relative_to(staging) for p in Path(staging).rglob("*") if p.is_file())
        shutil.copytree(staging, out, dirs_exist_ok=True)
    return {
        "run_dir": str(found.path.resolve()),
        "version": found.manifest.version,
        "format": form,
        "out": str(out.resolve()),
        "outputs": [{"path": str((out / p).resolve()), "bytes": (out / p).stat().st_size} for p in written],
    }
