"""What this machine has, and what is missing for what."""

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import recmerge
from recmerge.runs.memory import available_memory
from recmerge.runs.workspace import Workspace

_LOW_DISK = 2 * 1024**3  # bytes; the demo needs well under 1 GB, a 7B base about 16 GB
_LOW_MEMORY = 2 * 1024**3
_EXTRA = re.compile(r"""extra == ['"]([\w-]+)""")


def examine(workspace: Workspace) -> dict[str, Any]:
    """Look at versions, device, threads, memory, disk and caches.

    Args:
        workspace: The folder whose disk is looked at.

    Returns:
        JSON-like facts; `missing` lists what is not there as {what, needed_for, fix}.
    """
    packages, missing = _packages()
    device = _device()
    disk = _disk(workspace.root)
    memory = _memory()
    bundled = {name: _bundled(*parts) for name, parts in (("base", ("base", "nano")), ("sample", ("sample",)))}
    missing += _lacking(device, disk, memory, bundled)
    return {
        "recmerge": recmerge.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "device": device,
        "memory": memory,
        "workspace": {"path": str(workspace.root), **disk},
        "caches": _caches(),
        "bundled": bundled,
        "missing": missing,
    }


def cache_dir() -> Path:
    """Return where recmerge caches: `$RECMERGE_CACHE`, else `$XDG_CACHE_HOME/recmerge`, else `~/.cache/recmerge`."""
    own = os.environ.get("RECMERGE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "recmerge"


def _caches() -> dict[str, str]:
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    hugging_face = os.environ.get("HF_HOME")
    return {"recmerge": str(cache_dir()), "hugging_face": str(Path(hugging_face).expanduser() if hugging_face else default)}


def _packages() -> tuple[dict[str, str | None], list[dict[str, str]]]:
    """Compare what is installed with what recmerge and its extras declare."""
    from packaging.requirements import Requirement

    found: dict[str, str | None] = {}
    wrong: dict[str, list[str]] = {}
    for text in metadata.requires("recmerge") or []:
        requirement = Requirement(text)
        extra = _EXTRA.search(text)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            version = None
        if not extra:
            found[requirement.name] = version
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            what = f"{requirement.name}{requirement.specifier}" + (f" (found {version})" if version else "")
            wrong.setdefault(extra[1] if extra else "", []).append(what)
    missing = []
    for name, whats in sorted(wrong.items()):
        needed_for = f"the extra '{name}'" if name else "recmerge itself"
        missing.append({"what": ", ".join(whats), "needed_for": needed_for, "fix": f"pip install 'recmerge{f'[{name}]' if name else ''}'"})
    return dict(sorted(found.items())), missing


def _device() -> dict[str, Any]:
    info: dict[str, Any] = {"cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()}
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: one of its shared libraries
        return {**info, "kind": None, "threads": None, "gpus": [], "error": str(error)}
    gpus = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(i)
        gpus.append({"name": properties.name, "memory_bytes": properties.total_memory})
    return {**info, "kind": "cuda" if gpus else "cpu", "threads": torch.get_num_threads(), "gpus": gpus}


def _disk(root: Path) -> dict[str, Any]:
    place = root
    while not place.exists():
        place = place.parent
    return {"free_bytes": shutil.disk_usage(place).free, "writable": os.access(place, os.W_OK)}


def _memory() -> dict[str, int | None]:
    page = os.sysconf("SC_PAGE_SIZE")
    return {"total_bytes": page * os.sysconf("SC_PHYS_PAGES"), "available_bytes": available_memory()}


def _bundled(*parts: str) -> bool:
    folder = Path(recmerge.__file__).parent.joinpath("assets", *parts)
    return folder.is_dir() and any(folder.iterdir())


def _lacking(device: dict[str, Any], disk: dict[str, Any], memory: dict[str, int | None], bundled: dict[str, bool]) -> list[dict[str, str]]:
    """Say what is missing for what, the gravest first."""
    rows = []
    if device["kind"] is None:
        rows.append({"what": "a working torch", "needed_for": "base, train, infer, merge", "fix": f"install torch again: {device['error']}"})
    if not disk["writable"]:
        rows.append({"what": "permission to write the workspace", "needed_for": "every run", "fix": "choose another --workspace"})
    if disk["free_bytes"] < _LOW_DISK:
        rows.append({"what": "free disk (2 GB)", "needed_for": "data and runs", "fix": "free some space or choose another --workspace"})
    available = memory["available_bytes"]
    if available is not None and available < _LOW_MEMORY:
        rows.append({"what": "free memory (2 GB)", "needed_for": "train, infer", "fix": "close other programs or lower the batch size"})
    for name, there in bundled.items():
        if not there:
            rows.append({"what": f"the bundled {name}", "needed_for": "demo", "fix": "install recmerge again; the package is not whole"})
    if device["kind"] == "cpu":
        rows.append({"what": "a GPU", "needed_for": "bases of billions of parameters; the demo runs on a CPU", "fix": "none needed for small bases"})
    return rows
