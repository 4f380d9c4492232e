"""Download official files: sizes first, resumed, retried, checked, placed whole or not at all."""

import errno
import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from recmerge.data.official import RemoteFile
from recmerge.errors import NetworkError, ResourceError
from recmerge.runs.directory import write_text
from recmerge.runs.manifest import sha256_file
from recmerge.runs.reporter import Bar, Reporter

LOCK_FILE = "lock.json"
_TIMEOUT = 30
_TRIES = 5
_CHUNK = 1 << 20
_SPARE = 64 << 20  # bytes of disk left free
_MAGIC = {".gz": b"\x1f\x8b", ".zip": b"PK"}
_RETRIED = (408, 425, 429, 500, 502, 503, 504)
_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


@dataclass(frozen=True)
class Remote:
    """A file somewhere else.

    Args:
        file: Which one.
        place: Its URL, or a path on this machine.
        size: Bytes; None where the server does not say.
        mark: What changes when the file changes: ETag or Last-Modified; empty where the server does not say.
    """

    file: RemoteFile
    place: str
    size: int | None
    mark: str

    @property
    def local(self) -> bool:
        """Whether it lies on this machine."""
        return urlsplit(self.place).scheme not in {"http", "https"}


def locate(file: RemoteFile, mirror: str | None) -> str:
    """Return where to get a file.

    Args:
        file: Which one.
        mirror: None: the official place. Else the URL or path of a folder that holds files of the official names, or of one of them.

    Returns:
        A URL or a path.
    """
    if mirror is None:
        return file.url
    if urlsplit(mirror).scheme in {"http", "https"}:
        base = mirror.rsplit("/", 1)[0] if mirror.endswith(tuple(_MAGIC)) else mirror.rstrip("/")
        return f"{base}/{quote(file.name)}"
    folder = Path(mirror.removeprefix("file://")).expanduser()
    return str((folder.parent if folder.is_file() else folder) / file.name)


def survey(file: RemoteFile, place: str, *, pause: float = 1.0) -> Remote:
    """Ask for a file's size without getting it.

    Args:
        file: Which one.
        place: Its URL or path, see `locate`.
        pause: Seconds before the second try; doubled for each further one.

    Returns:
        What is known of it.

    Raises:
        NetworkError: It cannot be reached or is not there.
    """
    remote = Remote(file, place, None, "")
    if remote.local:
        path = Path(place)
        if not path.is_file():
            raise NetworkError(f"the mirror has no file {path}", fix="check --mirror")
        return replace(remote, size=path.stat().st_size, mark=str(path.stat().st_mtime_ns))
    request = urllib.request.Request(place, method="HEAD", headers={"User-Agent": "recmerge"})  # noqa: S310  (http or https by `local`)
    for attempt in range(_TRIES):
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
                return _described(remote, answer.headers)
        except urllib.error.HTTPError as error:
            if error.code in {403, 405, 501}:  # a server may refuse HEAD and yet give the file
                return remote
            if error.code not in _RETRIED or attempt == _TRIES - 1:
                raise NetworkError(f"{place} answers {error.code} {error.reason}", fix="check the address, or name another place by --mirror") from error
        except _BROKEN as error:
            if attempt == _TRIES - 1 or _offline(error):
                raise NetworkError(f"{place} cannot be reached: {_reason(error)}", fix="check the connection, or name a copy by --mirror") from error
        time.sleep(pause * 2**attempt)
    raise AssertionError("every try ends above")


def check_disk(folder: Path, needed: int) -> None:
    """Refuse a download that would fill the disk.

    Args:
        folder: Where it would go.
        needed: Bytes.

    Raises:
        ResourceError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise ResourceError(
            f"the download needs {needed:,} bytes, {free:,} are free on the disk of {folder}", fix="free some space or choose another --workspace"
        )


def fetch_file(remote: Remote, folder: Path, reporter: Reporter, *, pause: float = 1.0) -> Path:
    """Get one file, going on where an earlier try stopped.

    Args:
        remote: What to get.
        folder: Where to put it.
        reporter: Shows a bar.
        pause: Seconds before the second try; doubled for each further one.

    Returns:
        The file, complete and checked.

    Raises:
        NetworkError: It could not be got whole, or is not what it should be: by its published checksum, else by what the lock file recorded
            when it first came.
        ResourceError: The disk is full; what has come is kept, to go on from there.
    """
    target = folder / remote.file.name
    part = folder / f"{remote.file.name}.part"
    try:
        with reporter.bar(remote.file.name, remote.size or 0) as bar:
            if remote.local:
                shutil.copyfile(remote.place, part)
                bar.advance(remote.size or 0)
            else:
                _download(remote, part, bar, pause)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        have, free = part.stat().st_size if part.exists() else 0, shutil.disk_usage(folder).free
        whole = "an unknown number of" if remote.size is None else f"{remote.size:,}"
        raise ResourceError(
            f"the disk is full: {target} has {whole} bytes, {have:,} have come, {free:,} are free", fix="free some space and run the same command again"
        ) from error
    _check(remote, part, read_lock(folder).get(remote.file.name, {}).get("sha256", ""))
    part.replace(target)
    _state(part).unlink(missing_ok=True)
    return target


def _download(remote: Remote, part: Path, bar: Bar, pause: float) -> None:
    last: Exception | None = None
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            if _continue(remote, part, bar):
                return
            last = NetworkError("the connection ended early")
        except urllib.error.HTTPError as error:
            if error.code not in {416, *_RETRIED}:
                raise NetworkError(f"{remote.place} answers {error.code} {error.reason}", fix="check the address, or name another place by --mirror") from error
            if error.code == 416:  # the part is longer than the file: it is of another one
                part.unlink(missing_ok=True)
            last = error
        except _BROKEN as error:
            last = error
    have = part.stat().st_size if part.exists() else 0
    raise NetworkError(
        f"{remote.place} broke off {_TRIES} times, at {have:,} of {remote.size or 0:,} bytes: {_reason(last)}",
        fix="run the same command again to go on from there",
    )


def _continue(remote: Remote, part: Path, bar: Bar) -> bool:
    """Get what is missing of a file; tell whether it is whole now."""
    start = _resumable(remote, part)
    headers = {"User-Agent": "recmerge", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": remote.mark}
    request = urllib.request.Request(remote.place, headers=headers)  # noqa: S310  (http or https by `local`)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
        now = _described(remote, answer.headers)
        resumed = answer.status == 206 and _range_start(answer.headers) == start
        length = answer.headers.get("Content-Length")
        size = (start if resumed else 0) + int(length) if length and length.isdigit() else None
        write_text(_state(part), json.dumps({"place": remote.place, "mark": now.mark}))
        with part.open("ab" if resumed else "wb") as f:
            while block := answer.read(_CHUNK):
                f.write(block)
                bar.advance(len(block))
    return size is None or part.stat().st_size >= size


def _resumable(remote: Remote, part: Path) -> int:
    """Return how many bytes of an earlier try can be kept: none unless the server says the file is still the same."""
    try:
        state = json.loads(_state(part).read_text(encoding="utf-8"))
        same = state == {"place": remote.place, "mark": remote.mark}
        return part.stat().st_size if same and remote.mark and not remote.mark.startswith("W/") else 0
    except (OSError, ValueError):
        return 0


def _described(remote: Remote, headers: Any) -> Remote:
    length = headers.get("Content-Length")
    size = int(length) if length and length.isdigit() else None
    return replace(remote, size=size, mark=headers.get("ETag") or headers.get("Last-Modified") or "")


def _range_start(headers: Any) -> int:
    text = (headers.get("Content-Range") or "").removeprefix("bytes ").partition("-")[0]
    return int(text) if text.isdigit() else -1


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _check(remote: Remote, part: Path, sha256: str) -> None:
    """Refuse a file that is not what its name says, or not what came under it before (`sha256`, empty: nothing did); such a file is removed."""
    size = part.stat().st_size
    with part.open("rb") as f:
        head = f.read(512)
    magic = _MAGIC.get(Path(remote.file.name).suffix, b"")
    problem, fix = "", "try again later, or name another place by --mirror"
    if not head.startswith(magic):
        kind = "a web page" if head.lstrip()[:1] == b"<" else "another kind of file"
        problem = f"is {kind}, not a {Path(remote.file.name).suffix} file; it begins with {head[:40]!r}"
    elif remote.size is not None and size != remote.size:
        problem = f"has {size:,} bytes, {remote.size:,} were announced"
    elif remote.file.md5 and (found := _md5(part)) != remote.file.md5:
        problem = f"has md5 {found}, published is {remote.file.md5}"
    elif not remote.file.md5 and sha256 and (found := sha256_file(part)) != sha256:
        problem = f"has sha256 {found[:16]}..., {LOCK_FILE} recorded {sha256[:16]}... when it first came"
        fix = f"name another place by --mirror; where the new file is wanted, delete {part.parent / LOCK_FILE}"
    if problem:
        part.unlink()
        _state(part).unlink(missing_ok=True)
        raise NetworkError(f"{remote.place} {problem}", fix=fix)


def _md5(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _offline(error: BaseException) -> bool:
    """Tell whether the name itself cannot be found: waiting does not help."""
    return "getaddrinfo" in str(error) or "Name or service" in str(error) or "Temporary failure in name" in str(error)


def _reason(error: BaseException | None) -> str:
    return str(getattr(error, "reason", None) or error or "no answer")


def read_lock(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what was fetched into a folder: by file name place, bytes, sha256."""
    try:
        files = json.loads((folder / LOCK_FILE).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError):
        return {}
    return files if isinstance(files, dict) else {}


def record(folder: Path, remote: Remote) -> None:
    """Add a fetched file to its folder's lock file."""
    path = folder / remote.file.name
    entry = {"place": remote.place, "bytes": path.stat().st_size, "sha256": sha256_file(path), "mark": remote.mark, **asdict(remote.file)}
    files = {**read_lock(folder), remote.file.name: entry}
    write_text(folder / LOCK_FILE, json.dumps({"files": dict(sorted(files.items()))}, indent=2) + "\n")


def complete(folder: Path, files: Sequence[RemoteFile]) -> bool:
    """Tell whether all files are there as they were recorded (by size; their hash was checked when they came)."""
    lock = read_lock(folder)
    return all((folder / f.name).is_file() and lock.get(f.name, {}).get("bytes") == (folder / f.name).stat().st_size for f in files)
