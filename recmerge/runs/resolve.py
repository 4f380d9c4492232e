"""From a name, `name@v002` or a path to one complete run."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recmerge.errors import ArtifactError, UsageError, unknown_name
from recmerge.names import FAILURE, MANIFEST
from recmerge.runs.manifest import Input, Manifest, read_manifest, sha256_file
from recmerge.runs.workspace import Workspace, check_name

_MAX_PERMUTED = 5  # domains whose order in a name may be swapped freely


@dataclass(frozen=True)
class Found:
    """A complete run and where it lies."""

    path: Path
    manifest: Manifest

    @property
    def label(self) -> str:
        """Stage, name and version, as accepted wherever a name is."""
        return f"{self.manifest.stage}/{self.manifest.name}@{self.manifest.version}"

    def as_input(self, role: str, workspace: Workspace) -> Input:
        """Describe this run as another run's input."""
        m = self.manifest
        return Input(role, m.name, workspace.relative(self.path), m.content_sha256, sha256_file(self.path / MANIFEST), m.version)


def resolve(workspace: Workspace, ref: str, stages: Sequence[str], *, kind: str = "run", hint: str = "", wanted: str | None = None) -> Found:
    """Find the one complete run that a reference means.

    Args:
        workspace: Where to look.
        ref: `name`, `name@v002`, `stage/name`, `stage/name@v002`, or a path to a run folder.
        stages: Stages to look in.
        kind: What to call it in errors, e.g. "adapter".
        hint: The command that would make it, shown where it is missing.
        wanted: Accept only runs whose `facts["kind"]` is this, so that a name means the kind that is needed.

    Returns:
        The newest complete version where none is named.

    Raises:
        ArtifactError: There is no such complete run.
        UsageError: The reference could mean two runs, or is no valid name.
    """
    by_path = _from_path(workspace, ref)
    if by_path is not None:
        return by_path
    name, _, version = ref.partition("@")
    stage, slash, short = name.partition("/")
    if slash and stage in stages:
        stages, name = [stage], short
    check_name(name, kind)
    matches = {m.label: m for s in stages if (m := _newest(workspace, s, name, version, wanted)) is not None}
    if len(matches) > 1:
        raise UsageError(f"{kind} '{ref}' could mean {' or '.join(sorted(matches))}", fix=f"write one of them, e.g. {sorted(matches)[0]}")
    if not matches:
        raise ArtifactError(_missing(workspace, ref, stages, kind, wanted), fix=hint or "`recmerge runs list` shows what exists")
    return next(iter(matches.values()))


def list_runs(workspace: Workspace, stages: Sequence[str]) -> list[tuple[Path, Manifest | None, str]]:
    """Return every version folder of the stages with its manifest and state.

    Args:
        workspace: Where to look.
        stages: Stages to look in.

    Returns:
        (folder, manifest or None, state) where state is complete, failed, unfinished or corrupt (its manifest cannot be read).
    """
    rows = []
    for stage in stages:
        for name in workspace.run_names(stage):
            for folder in workspace.versions(stage, name):
                try:
                    manifest = read_manifest(folder)
                    state = "complete" if manifest else "failed" if (folder / FAILURE).exists() else "unfinished"
                except ArtifactError:
                    manifest, state = None, "corrupt"
                rows.append((folder, manifest, state))
    return rows


def same_name(name: str, asked: str, domains: Sequence[str]) -> bool:
    """Tell whether two names differ at most in the order of a set's domains.

    `sports_beauty` and `beauty_sports` name one hybrid, so both spellings find it.
    """
    if name == asked:
        return True
    if len(domains) < 2 or len(domains) > _MAX_PERMUTED:
        return False
    spellings = ["_".join(order) for order in itertools.permutations(domains)]
    tails = [name.removeprefix(spelling) for spelling in spellings if name.startswith(spelling)]
    return any(asked == spelling + tail for spelling in spellings for tail in tails)


def _from_path(workspace: Workspace, ref: str) -> Found | None:
    for path in (Path(ref), workspace.root / ref):
        folder = path.parent if path.name == MANIFEST else path
        if _is_file(folder / MANIFEST):
            manifest = read_manifest(folder)
            if manifest is not None:
                return Found(folder.resolve(), manifest)
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # longer than any path may be
        return False


def _newest(workspace: Workspace, stage: str, asked: str, version: str, wanted: str | None) -> Found | None:
    names = [asked] if workspace.versions(stage, asked) else workspace.run_names(stage)
    for name in names:
        for folder in reversed(workspace.versions(stage, name)):
            if version and folder.name != version:
                continue
            manifest = read_manifest(folder)
            if manifest is None or (wanted and manifest.facts.get("kind") != wanted):
                continue
            if same_name(name, asked, manifest.facts.get("domains", [])):
                return Found(folder, manifest)
            break
    return None


def _missing(workspace: Workspace, ref: str, stages: Sequence[str], kind: str, wanted: str | None) -> str:
    known = {
        manifest.name for _, manifest, _ in list_runs(workspace, stages) if manifest is not None and (wanted is None or manifest.facts.get("kind") == wanted)
    }
    return "no complete run: " + unknown_name(kind, ref, known)
