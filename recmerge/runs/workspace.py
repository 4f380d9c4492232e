"""Where runs live, and which names they may have."""

import re
from dataclasses import dataclass
from pathlib import Path

from recmerge.errors import UsageError
from recmerge.names import STAGE_DIRS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"v\d{3,}")


@dataclass(frozen=True)
class Workspace:
    """The folder that holds `data/` and `runs/`.

    Args:
        root: An absolute path; it need not exist yet.
    """

    root: Path

    def stage_dir(self, stage: str) -> Path:
        """Return the folder of a stage's runs."""
        return self.root / STAGE_DIRS[stage]

    def versions(self, stage: str, name: str) -> list[Path]:
        """Return a run name's version folders, oldest first."""
        folder = self.stage_dir(stage) / name
        if not folder.is_dir():
            return []
        found = [p for p in folder.iterdir() if _VERSION.fullmatch(p.name) and p.is_dir()]
        return sorted(found, key=lambda p: int(p.name[1:]))

    def run_names(self, stage: str) -> list[str]:
        """Return the names of a stage's runs."""
        folder = self.stage_dir(stage)
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and _NAME.fullmatch(p.name))

    def relative(self, path: Path) -> str:
        """Return `path` as recorded in a manifest: relative where it lies in the workspace."""
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return str(path)


def check_name(name: str, kind: str = "name") -> str:
    """Return `name` if it is safe as one folder's name.

    Args:
        name: The name to check.
        kind: What to call it in the error.

    Returns:
        The same name.

    Raises:
        UsageError: The name could leave its folder or is not a plain word.
    """
    if not _NAME.fullmatch(name) or ".." in name or _VERSION.fullmatch(name):
        shown = name if len(name) <= 60 else name[:57] + "..."
        raise UsageError(
            f"{kind} '{shown}' is not allowed: 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit",
            fix=f"choose a {kind} such as 'sports' or 'sports-seed2'",
        )
    return name
