"""Describe a data set in numbers."""

from typing import Any

from recmerge.data.statistics import describe_set
from recmerge.runs.workspace import Workspace
from recmerge.stages.check import load_set


def run_stats(ref: str, workspace: Workspace) -> dict[str, Any]:
    """Describe one data set.

    Args:
        ref: Its name, name@version or path.
        workspace: Where to look.

    Returns:
        Where it lies, and its statistics, see `describe_set`.

    Raises:
        ArtifactError: There is no such set, or it cannot be read.
    """
    found, training_set = load_set(ref, workspace)
    place = {"run_dir": str(found.path.resolve()), "version": found.manifest.version, "outputs": []}
    return {**place, **describe_set(training_set), "build": found.manifest.facts}
