"""Download the official files of a source into the workspace."""

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recmerge.data.fetching import LOCK_FILE, Remote, check_disk, complete, fetch_file, locate, read_lock, record, survey
from recmerge.data.official import RAW_DIR, RemoteFile, official, official_files
from recmerge.errors import ConflictError, NetworkError, ResourceError
from recmerge.runs.reporter import Reporter
from recmerge.runs.workspace import Workspace

_SLOW, _FAST = 2e6, 20e6  # bytes a second, for a first guess at how long it takes


def run_fetch(
    source: str,
    domains: Sequence[str] | None,
    mirror: str | None,
    workspace: Workspace,
    reporter: Reporter,
    *,
    dry_run: bool = False,
    pause: float = 1.0,
) -> dict[str, Any]:
    """Fetch what is not there yet.

    Args:
        source: An official source's name.
        domains: Which of its domains; None: the usual ones.
        mirror: A URL, folder or file to take it from instead.
        workspace: Where it goes, below data/raw.
        reporter: Where progress goes.
        dry_run: Only say how much it would be.
        pause: Seconds before a second try.

    Returns:
        The folder and the files in it.

    Raises:
        UsageError: The source or a domain is unknown.
        NetworkError: A file cannot be got.
        ResourceError: The disk is too full.
        ConflictError: Another process fetches into the same folder.
    """
    chosen = list(dict.fromkeys(domains or official(source).default))
    files = list(dict.fromkeys(f for domain in chosen for f in official_files(source, domain)))  # two domains may share a file
    folder = workspace.root / RAW_DIR / source
    missing = [f for f in files if not complete(folder, [f])]
    remotes = _survey_all(missing, mirror, pause)
    size = sum(r.size or 0 for r in remotes)
    unknown = sum(r.size is None for r in remotes)
    if remotes:
        more = f", {unknown} of unknown size" if unknown else ""
        reporter.say(f"{len(remotes)} files, {size / 1e6:,.1f} MB{more}, about {_minutes(size / _FAST)} to {_minutes(size / _SLOW)}, into {folder}")
    if not dry_run and remotes:
        _fetch_all(remotes, folder, size, reporter, pause)
    reporter.say(f"licence: {official(source).licence}")
    return _document(source, chosen, files, folder, fetched=[] if dry_run else missing, dry_run=dry_run)


def _survey_all(missing: Sequence[RemoteFile], mirror: str | None, pause: float) -> list[Remote]:
    try:
        return [survey(f, locate(f, mirror), pause=pause) for f in missing]
    except NetworkError as error:
        raise NetworkError(f"{error.what}; not here yet: {', '.join(f.name for f in missing)}", fix=error.fix) from error


def _fetch_all(remotes: Sequence[Remote], folder: Path, size: int, reporter: Reporter, pause: float) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot write in {folder}: {error.strerror}", fix="choose another --workspace or mend its permissions") from error
    check_disk(folder, size)
    with _alone(folder):
        for remote in remotes:
            fetch_file(remote, folder, reporter, pause=pause)
            record(folder, remote)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process from writing the same parts."""
    with (folder / ".lock").open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"another process fetches into {folder}", fix="wait for it") from None
        yield


def _document(source: str, domains: list[str], files: Sequence[RemoteFile], folder: Path, fetched: Sequence[RemoteFile], *, dry_run: bool) -> dict[str, Any]:
    lock = read_lock(folder)
    present = [f for f in files if f.name in lock]
    return {
        "run_dir": str(folder),
        "version": "",
        "source": source,
        "domains": domains,
        "dry_run": dry_run,
        "fetched": [f.name for f in fetched],
        "outputs": [{"path": str(folder / f.name), "bytes": lock[f.name]["bytes"], "sha256": lock[f.name]["sha256"]} for f in present],
        "lock": str(folder / LOCK_FILE),
    }


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds >= 60 else f"{seconds:,.0f} s"
