"""The record of a run: what was asked, from what, by which code, and what came out."""

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any

import recmerge
from recmerge.errors import ArtifactError
from recmerge.names import FAILURE, LOCK, MANIFEST, STARTED

SCHEMA_VERSION = 1
_PACKAGES = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "safetensors", "polars", "numpy")
_NOT_OUTPUTS = {MANIFEST, FAILURE, STARTED, LOCK}
_SECRETS = (re.compile(r"(?<=://)[^/@\s]+@"), re.compile(r"\bhf_[A-Za-z0-9]{16,}"))


@dataclass(frozen=True)
class Input:
    """One thing a run was made from.

    Args:
        role: What it is to the run, e.g. "data", "adapter-2".
        name: Its run name, or the file's name.
        path: Where it was found, relative to the workspace where inside it.
        content_sha256: Hash of what it holds; enters the identity of the run.
        manifest_sha256: Hash of its manifest file; empty for plain files.
        version: Its version, e.g. "v002"; empty for plain files.
    """

    role: str
    name: str
    path: str
    content_sha256: str
    manifest_sha256: str = ""
    version: str = ""


@dataclass(frozen=True)
class RunSpec:
    """What a run sets out to do; equal identities give equal results.

    Args:
        stage: A key of `names.STAGE_DIRS`.
        name: The run's name.
        config: The resolved configuration, JSON-like.
        inputs: What it reads.
        code: Hash of the code that does it, see `code_version`.
        seeds: Every seed by name.
        ignore: Top-level config keys that do not change the result (device, batch of scoring ...).
    """

    stage: str
    name: str
    config: dict[str, Any]
    inputs: tuple[Input, ...]
    code: str
    seeds: dict[str, int] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """Hash of the config, inputs and code."""
        config = {k: v for k, v in self.config.items() if k not in self.ignore}
        inputs = sorted((i.role, i.content_sha256) for i in self.inputs)
        return sha256_json({"stage": self.stage, "config": config, "inputs": inputs, "code": self.code})


@dataclass(frozen=True)
class Manifest:
    """A complete run's `manifest.json`."""

    stage: str
    name: str
    version: str
    identity: str
    code_version: str
    command: list[str]
    config: dict[str, Any]
    inputs: list[dict[str, str]]
    outputs: list[dict[str, Any]]
    content_sha256: str
    facts: dict[str, Any]
    seeds: dict[str, int]
    git: dict[str, Any]
    packages: dict[str, str]
    hardware: dict[str, Any]
    started: str
    ended: str
    seconds: float
    peak_memory_bytes: int
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return the file's text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """Read a run folder's manifest.

    Args:
        folder: A version folder.

    Returns:
        The manifest, or None where the run is not complete.

    Raises:
        ArtifactError: There is a manifest but it cannot be read.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Manifest(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"the manifest {path} cannot be read: {error}", fix="delete that version's folder and run its command again") from error


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, as hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the sha256 of a JSON-like value in one canonical spelling, as hex."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def list_outputs(folder: Path, skip: frozenset[str] = frozenset(), hashed: Mapping[str, str] = MappingProxyType({})) -> list[dict[str, Any]]:
    """Hash every file a run wrote.

    Args:
        folder: The version folder.
        skip: Names of top-level entries that are not outputs.
        hashed: The hashes of those outputs that were read a moment ago, by path.

    Returns:
        One `{path, bytes, sha256}` per file, by path.
    """
    outputs = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_dir() or relative.parts[0] in skip or relative.as_posix() in _NOT_OUTPUTS:
            continue
        outputs.append({"path": relative.as_posix(), "bytes": path.stat().st_size, "sha256": hashed.get(relative.as_posix()) or sha256_file(path)})
    return outputs


def content_hash(outputs: list[dict[str, Any]], volatile: frozenset[str] = frozenset()) -> str:
    """Return one hash over outputs, leaving out those that hold times (`volatile`)."""
    return sha256_json([(o["path"], o["sha256"]) for o in outputs if o["path"] not in volatile])


def input_from_file(role: str, path: Path, shown: str) -> Input:
    """Describe a plain file as an input.

    Args:
        role: What it is to the run.
        path: The file.
        shown: Its path as recorded.

    Returns:
        The input, known by the hash of its bytes.

    Raises:
        ArtifactError: There is no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"{role} file {path} does not exist", fix="check the path; paths in a YAML are read from the YAML's own folder")
    return Input(role=role, name=path.name, path=shown, content_sha256=sha256_file(path))


@lru_cache
def code_version(*parts: str) -> str:
    """Return the version of the code that makes a stage's result.

    Args:
        *parts: Paths below the package, files or folders, e.g. "data", "lm/sft.py".

    Returns:
        The package's version and a hash over the named sources.
    """
    root = Path(recmerge.__file__).parent
    digest = hashlib.sha256()
    for part in sorted(parts):
        target = root / part
        for path in sorted(target.rglob("*.py")) if target.is_dir() else [target]:
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return f"{recmerge.__version__}+{digest.hexdigest()[:12]}"


def redact(text: str) -> str:
    """Hide credentials that a command line or URL may hold."""
    for pattern in _SECRETS:
        text = pattern.sub("***", text)
    return text


@lru_cache
def git_state() -> dict[str, Any]:
    """Return the commit and dirty flag of the checkout recmerge runs from, if it is one."""
    root = Path(recmerge.__file__).parent
    try:
        commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        status = subprocess.run(["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": None, "dirty": None}
    if commit.returncode:
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


@lru_cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that decide a result."""
    found = {"python": platform.python_version(), "recmerge": recmerge.__version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return what the run ran on; the GPU only where torch is already loaded."""
    import sys

    info: dict[str, Any] = {"machine": platform.machine(), "system": platform.system(), "cpus": os.cpu_count()}
    torch = sys.modules.get("torch")
    if torch is not None:
        info["threads"] = torch.get_num_threads()
        info["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return info
