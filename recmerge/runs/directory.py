"""Open, lock, finish or fail one run directory."""

import contextlib
import errno
import fcntl
import json
import os
import resource
import socket
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from recmerge.errors import ArtifactError, ConflictError, Interrupted, RecmergeError, ResourceError
from recmerge.names import FAILURE, LOCK, MANIFEST, STARTED
from recmerge.runs.manifest import (
    Manifest,
    RunSpec,
    code_version,
    content_hash,
    git_state,
    hardware,
    list_outputs,
    package_versions,
    read_manifest,
    redact,
    sha256_json,
)
from recmerge.runs.reporter import Reporter, SilentReporter
from recmerge.runs.workspace import Workspace

__all__ = ["Run", "code_version", "find_done", "find_unfinished", "open_run", "write_text"]


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or none of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Run:
    """A run directory being written; use it as a context manager.

    Leaving the `with` block publishes `manifest.json`; an exception leaves `failure.json` instead.

    Args:
        workspace: Where the run lives.
        spec: What it sets out to do.
        path: Its version folder, locked by this process.
        lock_fd: The open lock file.
        reporter: Where progress goes.
    """

    def __init__(self, workspace: Workspace, spec: RunSpec, path: Path, lock_fd: int, reporter: Reporter) -> None:
        self.workspace = workspace
        self.spec = spec
        self.path = path
        self.reporter = reporter
        self.facts: dict[str, Any] = {}
        self.volatile: set[str] = set()  # outputs that hold times: hashed, but not part of the content
        self.skip: set[str] = set()  # top-level entries that are no outputs (checkpoints)
        self.hashed: dict[str, str] = {}  # outputs that the stage has just read back: path -> sha256
        self.manifest: Manifest | None = None
        self._lock_fd = lock_fd
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    @property
    def version(self) -> str:
        """The version folder's name, e.g. "v001"."""
        return self.path.name

    def input_path(self, role: str) -> Path:
        """Return where the input of a role lies."""
        for item in self.spec.inputs:
            if item.role == role:
                return self.workspace.root / item.path
        raise KeyError(role)

    def __enter__(self) -> "Run":
        record = {
            "identity": self.spec.identity,
            "spec": json.loads(json.dumps(asdict(self.spec), default=str)),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": self._started.isoformat(),
            "command": _command(),
        }
        write_text(self.path / STARTED, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        (self.path / FAILURE).unlink(missing_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._publish()
            else:
                self._fail(error)
        finally:
            os.close(self._lock_fd)

    def _publish(self) -> None:
        outputs = list_outputs(self.path, frozenset(self.skip), self.hashed)
        ended = datetime.now(UTC)
        self.manifest = Manifest(
            stage=self.spec.stage,
            name=self.spec.name,
            version=self.version,
            identity=self.spec.identity,
            code_version=self.spec.code,
            command=_command(),
            config=self.spec.config,
            inputs=[asdict(i) for i in self.spec.inputs],
            outputs=outputs,
            content_sha256=content_hash(outputs, frozenset(self.volatile)),
            facts=self.facts,
            seeds=self.spec.seeds,
            git=git_state(),
            packages=package_versions(),
            hardware=hardware(),
            started=self._started.isoformat(),
            ended=ended.isoformat(),
            seconds=round(time.monotonic() - self._clock, 3),
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        write_text(self.path / MANIFEST, self.manifest.to_json())
        (self.path / LOCK).unlink(missing_ok=True)  # a complete run is never opened again

    def _fail(self, error: BaseException) -> None:
        stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
        code = error.exit_code if isinstance(error, RecmergeError) else 130 if stopped else 1
        record = {
            "state": "interrupted" if stopped else "failed",
            "error": redact(str(error)),
            "type": type(error).__name__,
            "exit_code": code,
            "ended": datetime.now(UTC).isoformat(),
        }
        with contextlib.suppress(OSError):  # a full disk must not hide the first error
            write_text(self.path / FAILURE, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _command() -> list[str]:
    return [Path(sys.argv[0]).name, *(redact(a) for a in sys.argv[1:])]


def find_done(workspace: Workspace, spec: RunSpec) -> Manifest | None:
    """Return the newest complete run with the same name and identity whose files are all there."""
    for folder in reversed(workspace.versions(spec.stage, spec.name)):
        manifest = read_manifest(folder)
        if manifest is not None and manifest.identity == spec.identity and _intact(folder, manifest):
            return manifest
    return None


def _intact(folder: Path, manifest: Manifest) -> bool:
    for output in manifest.outputs:
        path = folder / output["path"]
        if not path.is_file() or path.stat().st_size != output["bytes"]:
            return False
    return True


def find_unfinished(workspace: Workspace, stage: str, name: str) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest version that was started and never completed, with its start record."""
    for folder in reversed(workspace.versions(stage, name)):
        if (folder / MANIFEST).exists():
            return None  # a later complete run stands for the name
        record = folder / STARTED
        if record.is_file():
            try:
                return folder, json.loads(record.read_text(encoding="utf-8"))
            except ValueError:
                continue
    return None


def open_run(workspace: Workspace, spec: RunSpec, *, reporter: Reporter | None = None, resume: Path | None = None) -> Run:
    """Make (or reopen) a run's version folder and lock it.

    Args:
        workspace: Where runs live.
        spec: What the run does.
        reporter: Where progress goes; silent by default.
        resume: An unfinished version folder to go on with instead of a new one.

    Returns:
        A run to be used in a `with` statement.

    Raises:
        ConflictError: Another process is at the same work.
        ResourceError: The folder cannot be made.
    """
    parent = workspace.stage_dir(spec.stage) / spec.name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if resume is None:
            _refuse_twin(workspace, spec)
        folder = resume or _new_version(parent)
        lock_fd = _lock(folder)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise ResourceError(f"cannot write in {parent}: {error.strerror}", fix="choose another --workspace or mend its permissions") from error
    return Run(workspace, spec, folder, lock_fd, reporter or SilentReporter())


def _new_version(parent: Path) -> Path:
    numbers = [int(p.name[1:]) for p in parent.glob("v[0-9]*") if p.name[1:].isdigit()]
    number = max(numbers, default=0) + 1
    while True:  # mkdir is the arbiter when two start in the same instant
        folder = parent / f"v{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
            continue
        return folder


def _lock(folder: Path) -> int:
    """Take the folder's lock; the kernel frees it when the holder dies, however it dies."""
    path = folder / LOCK
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 4096).decode(errors="replace")
        os.close(fd)
        raise ConflictError(f"{folder} is being written by {_holder(holder)}", fix="wait for it, or stop that process") from None
    os.ftruncate(fd, 0)
    os.write(fd, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
    return fd


def _holder(text: str) -> str:
    try:
        record = json.loads(text)
        return f"process {record['pid']} on {record['host']}"
    except (ValueError, KeyError):
        return "another process"


def _refuse_twin(workspace: Workspace, spec: RunSpec) -> None:
    """Refuse to start the same work beside a process that is at it right now."""
    for folder in workspace.versions(spec.stage, spec.name):
        record = folder / STARTED
        if (folder / MANIFEST).exists() or not record.is_file():
            continue
        try:
            same = json.loads(record.read_text(encoding="utf-8"))["identity"] == spec.identity
        except (ValueError, KeyError):
            continue
        if same:
            os.close(_lock(folder))


def check_unchanged(record: dict[str, Any], spec: RunSpec) -> str:
    """Compare what an unfinished run set out to do with what is asked now.

    Args:
        record: The unfinished run's start record.
        spec: What is asked now.

    Returns:
        Empty where nothing that matters changed, else the differences in one line.

    Raises:
        ArtifactError: The record holds no specification.
    """
    try:
        old = record["spec"]
        before = RunSpec(**{**old, "inputs": (), "ignore": tuple(old["ignore"])})
    except (KeyError, TypeError) as error:
        raise ArtifactError("the unfinished run's record cannot be read", fix="start again without --resume") from error
    changes = [
        f"{key}: {_short(before.config.get(key))} -> {_short(spec.config.get(key))}"
        for key in sorted({*before.config, *spec.config} - set(spec.ignore))
        if sha256_json(before.config.get(key)) != sha256_json(spec.config.get(key))
    ]
    then = {i["role"]: i["content_sha256"][:12] for i in old["inputs"]}
    now = {i.role: i.content_sha256[:12] for i in spec.inputs}
    changes += [f"{role}: {then.get(role)} -> {now.get(role)}" for role in sorted({*then, *now}) if then.get(role) != now.get(role)]
    if before.code != spec.code:
        changes.append(f"code: {before.code} -> {spec.code}")
    return ", ".join(changes)


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
