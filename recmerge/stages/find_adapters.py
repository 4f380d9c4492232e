"""From what a user names to the adapters and the base model that a merge reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recmerge.config.merge import MergeConfig
from recmerge.errors import ArtifactError, UsageError
from recmerge.lm.adapter_file import AdapterFile, is_adapter
from recmerge.merging.side_by_side import side_by_side
from recmerge.names import ADAPTER_DIR, MANIFEST
from recmerge.runs.manifest import Input
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace, check_name

STAGES = ("train", "merge")


@dataclass(frozen=True)
class NamedAdapter:
    """An adapter and how it was found.

    Args:
        file: The adapter.
        source: The input to record.
        domains: The domains it was trained on, where known.
    """

    file: AdapterFile
    source: Input
    domains: tuple[str, ...]


def find_adapters(config: MergeConfig, workspace: Workspace) -> list[NamedAdapter]:
    """Open the adapters that a config means, in its order.

    Args:
        config: The merge's settings.
        workspace: Where runs live.

    Returns:
        M adapters, headers read.

    Raises:
        UsageError: Neither or both of adapters and a target are given, or a name could mean two runs.
        ArtifactError: One is missing (all are named), corrupt or no plain LoRA.
    """
    _check_choice(config)
    refs: Sequence[str | Found] = config.adapters if config.target is None else _find_by_target(config, config.target, workspace)
    return list(side_by_side(lambda numbered: _open(workspace, numbered[1], f"adapter-{numbered[0]}"), enumerate(refs, start=1)))


def n_adapters(config: MergeConfig) -> int:
    """Return how many adapters a config means, before any is looked for."""
    return len(config.adapters) if config.target is None else 1 + len(config.sources)


def _label(source: Input) -> str:
    return f"{source.name}@{source.version}" if source.version else source.path


def _check_choice(config: MergeConfig) -> None:
    if config.adapters and (config.target or config.sources):
        raise UsageError("both adapters and a target with sources are given", fix="give --adapters A,B,C or --target T --sources S1,S2")
    if config.sources and not config.target:
        raise UsageError("sources are given without a target", fix="add --target T")
    if config.target is None:
        return
    if not config.sources:
        raise UsageError(f"target '{config.target}' has no sources", fix="add --sources S1,S2")
    repeated = [s for i, s in enumerate(config.sources) if s in config.sources[:i] or s == config.target]
    if repeated:
        raise UsageError(f"source '{repeated[0]}' stands twice or is the target", fix="name every domain once")


def _find_by_target(config: MergeConfig, target: str, workspace: Workspace) -> list[Found]:
    for name in (target, *config.sources):
        check_name(name, "domain")
    wanted = {target: [target], **{"_".join(sorted((target, s))): [target, s] for s in config.sources}}
    found: list[Found] = []
    missing: dict[str, list[str]] = {}
    for name, domains in wanted.items():
        run = _find_trained(workspace, name, config.base)
        if run is None:
            missing[name] = domains
        else:
            found.append(run)
    if missing:
        base = f" --base {config.base}" if config.base else ""
        commands = [c for name, domains in missing.items() for c in _commands(workspace, name, domains, base)]
        raise ArtifactError(f"{len(missing)} of {len(wanted)} adapters are missing: {', '.join(missing)}", fix=" && ".join(commands))
    return found


def _find_trained(workspace: Workspace, name: str, base: str | None) -> Found | None:
    """Find a trained adapter; with a base named, prefer the run that carries its name."""
    names = [f"{name}-{Path(base).name}", name] if base else [name]
    for candidate in names:
        try:
            return resolve(workspace, candidate, ["train"], kind="adapter", wanted="adapter")
        except ArtifactError:
            continue
        except UsageError:
            if candidate == name:  # a base's name may not be a run's
                raise
    return None


def _commands(workspace: Workspace, name: str, domains: list[str], base: str) -> list[str]:
    mixes = []
    if len(domains) == 2 and not any((f / MANIFEST).is_file() for f in workspace.versions("mix", name)):
        mixes = [f"recmerge data mix {domains[0]} {domains[1]}"]
    return [*mixes, f"recmerge train {name}{base}"]


def _open(workspace: Workspace, ref: str | Found, role: str) -> NamedAdapter:
    if isinstance(ref, str):
        folder = _plain_folder(workspace, ref)
        if folder is not None:
            return _open_plain(workspace, folder, role)
        ref = resolve(workspace, ref, STAGES, kind="adapter", wanted="adapter")
    kind = ref.manifest.facts.get("kind")
    if kind != "adapter" and not is_adapter(ref.path / ADAPTER_DIR):
        raise ArtifactError(f"{ref.label} is a {kind or ref.manifest.stage}, not an adapter", fix="`recmerge runs list` shows what each run holds")
    source = ref.as_input(role, workspace)
    file = AdapterFile(ref.path / ADAPTER_DIR, _label(source))
    return NamedAdapter(file, source, tuple(ref.manifest.facts.get("domains", ())))


def _plain_folder(workspace: Workspace, ref: str) -> Path | None:
    """Return the folder that a reference means, or None where it is to be looked up as a run."""
    if not ref.strip():
        raise UsageError("an adapter's name is empty", fix="give --adapters A,B,C")
    paths = (Path(ref).expanduser(), workspace.root / ref)
    for path in paths:
        if is_adapter(path):
            return path
    looks_like_path = ref.startswith((".", "/", "~")) or ref.count("/") > 1
    if any((p / MANIFEST).is_file() or p.name == MANIFEST for p in paths):
        return None
    return next((p for p in paths if p.is_dir()), paths[0]) if looks_like_path else None


def _open_plain(workspace: Workspace, folder: Path, role: str) -> NamedAdapter:
    folder = folder.resolve()
    run = resolve(workspace, str(folder.parent), STAGES) if folder.name == ADAPTER_DIR and (folder.parent / MANIFEST).is_file() else None
    if run is not None and run.manifest.stage in STAGES:
        return _open(workspace, run, role)
    file = AdapterFile(folder, workspace.relative(folder))
    source = Input(role, folder.name, workspace.relative(folder), file.content_sha256)
    return NamedAdapter(file, source, tuple((file.card or {}).get("domains", ())))


def find_base_weights(ref: str, revision: str | None, workspace: Workspace) -> tuple[Path, str]:
    """Find a base model on this machine; nothing is downloaded.

    Args:
        ref: A folder, a shipped base, a `base pretrain` run or a Hugging Face id.
        revision: Of a Hugging Face id.
        workspace: Where runs live.

    Returns:
        The folder of its config.json and weights, and its fingerprint.

    Raises:
        ArtifactError: It is not on this machine.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    from recmerge.lm.base import fingerprint
    from recmerge.stages.lm_refs import find_base

    base = find_base(workspace, ref, revision)
    if base.folder is not None:
        return base.folder.resolve(), fingerprint(base)
    try:
        return Path(snapshot_download(base.source, revision=revision, local_files_only=True)), fingerprint(base)
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError) as error:
        raise ArtifactError(f"base '{ref}' is not on this machine", fix="give its folder with --base, or download it first") from error


def is_hub_id(ref: str, workspace: Workspace) -> bool:
    """Tell whether a base's name is a Hugging Face id, whose fingerprint is its commit and not its files."""
    from recmerge.stages.lm_refs import find_base

    try:
        return find_base(workspace, ref).folder is None
    except ArtifactError:  # a folder that is no longer there
        return False
