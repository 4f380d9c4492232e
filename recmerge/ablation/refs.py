"""How a cell's result is named in the commands that use it."""

from collections.abc import Mapping
from typing import Any

from recmerge.names import MANIFEST
from recmerge.runs.workspace import Workspace

_SAME_NAMES = {"train": ("merge",), "merge": ("train",)}  # stages whose runs are looked up together


def reference(workspace: Workspace, result: Mapping[str, Any]) -> str:
    """Name a run so that exactly this version is meant, as shortly as possible.

    A bare name stands for its newest complete version, which may be another ablation's.

    Args:
        workspace: Where it lies.
        result: The JSON document of the command that made it: stage, name, version.

    Returns:
        `name`, `name@v001`, or with `stage/` before it.
    """
    stage, name, version = result["stage"], result["name"], result["version"]
    newest = next((v.name for v in reversed(workspace.versions(stage, name)) if (v / MANIFEST).is_file()), None)
    text = name if newest == version else f"{name}@{version}"
    clash = any(workspace.versions(other, name) for other in _SAME_NAMES.get(stage, ()))
    return f"{stage}/{text}" if clash else text
