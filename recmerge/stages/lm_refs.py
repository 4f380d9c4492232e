"""Find the base models and adapters that names mean, and read what is noted beside them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recmerge.errors import ArtifactError
from recmerge.lm.base import BaseRef, base_card, find, shipped_base
from recmerge.lm.encoding import PromptSettings
from recmerge.lm.lora import read_card
from recmerge.names import ADAPTER_DIR, MODEL_DIR
from recmerge.runs.manifest import Input, read_manifest, sha256_file, sha256_json
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace

DEFAULT_BASE = "nano"  # ships with the package
_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclass(frozen=True)
class AdapterRef:
    """A LoRA adapter, or a whole model that one was folded into.

    Args:
        label: A short name for tables.
        folder: The adapter's folder in peft's format, or the folded model's; None: the base alone.
        folded: The folder holds a whole model.
        base: The base model it belongs to.
        card: What is noted beside it.
        input: As recorded in a manifest; None: the base alone.
    """

    label: str
    folder: Path | None
    folded: bool
    base: BaseRef
    card: dict[str, Any]
    input: Input | None


def find_base(workspace: Workspace, ref: str, revision: str | None = None, trust_remote_code: bool = False) -> BaseRef:
    """Find a base model.

    Args:
        workspace: Where `base pretrain` runs live.
        ref: A shipped name, a run of `base pretrain`, a folder, or a Hugging Face id.
        revision: Of a Hugging Face id.
        trust_remote_code: Allow the model's own code.

    Returns:
        The base; a ref that is nothing on this machine is taken for a Hugging Face id.

    Raises:
        ArtifactError: A folder that holds no model.
    """
    name = ref.partition("@")[0]
    if shipped_base(ref) is None and workspace.versions("base", name.removeprefix("base/")):
        found = resolve(workspace, ref, ["base"], kind="base")
        return BaseRef(ref, str(found.path / MODEL_DIR))
    return find(ref, revision, trust_remote_code)


def find_adapter(workspace: Workspace, ref: str, base: str | None, trust_remote_code: bool = False) -> AdapterRef:
    """Find a trained or merged adapter by run name, run folder, or a plain folder in peft's format.

    Args:
        workspace: Where runs live.
        ref: The reference, or "none" for the base alone.
        base: Overrides the base noted beside the adapter; of "none" the shipped base by default.
        trust_remote_code: Allow the base model's own code.

    Returns:
        The adapter and its base.

    Raises:
        ArtifactError: Nothing of that name is there.
    """
    if ref == "none":
        return AdapterRef("zero-shot", None, False, find_base(workspace, base or DEFAULT_BASE, None, trust_remote_code), {}, None)
    plain = Path(ref).expanduser()
    if (plain / "adapter_config.json").is_file() and plain.resolve().parent.joinpath("manifest.json").is_file():
        plain = plain.resolve().parent
        ref = str(plain)
    if (plain / "adapter_config.json").is_file():
        return _foreign(workspace, plain.resolve(), base, trust_remote_code)
    hint = "recmerge train NAME makes one; `recmerge runs list` shows what exists"
    found = resolve(workspace, ref, ["train", "merge"], kind="adapter", hint=hint, wanted=None)
    return _from_run(workspace, found, base, trust_remote_code)


def _from_run(workspace: Workspace, found: Found, base: str | None, trust: bool) -> AdapterRef:
    kind = found.manifest.facts.get("kind")
    item = found.as_input("adapter", workspace)
    if kind == "model":
        folder = found.path / MODEL_DIR
        return AdapterRef(found.manifest.name, folder, True, BaseRef(str(folder), str(folder), None, trust), read_card(folder), item)
    if kind != "adapter":
        raise ArtifactError(f"'{found.label}' is a {kind}, not an adapter", fix="use --ranker for rankers")
    folder = found.path / ADAPTER_DIR
    _check_bytes(found)
    return AdapterRef(found.manifest.name, folder, False, _base_of(workspace, folder, base, trust), read_card(folder), item)


def _check_bytes(found: Found) -> None:
    """Refuse an adapter whose weights are not the ones that were written."""
    for output in found.manifest.outputs:
        path = found.path / output["path"]
        if path.name == "adapter_model.safetensors" and (not path.is_file() or sha256_file(path) != output["sha256"]):
            raise ArtifactError(f"{path} is not the file that was written: its sha256 differs from the manifest's", fix="make that run again with --again")


def _foreign(workspace: Workspace, folder: Path, base: str | None, trust: bool) -> AdapterRef:
    content = sha256_json({p.name: sha256_file(p) for p in sorted(folder.glob("adapter_*"))})
    item = Input("adapter", folder.name, workspace.relative(folder), content)
    # A trainer's checkpoints are all called alike; what they are of stands on the folder around them.
    label = f"{folder.parent.name}-{folder.name}" if _CHECKPOINT.fullmatch(folder.name) else folder.name
    return AdapterRef(label, folder, False, _base_of(workspace, folder, base, trust), read_card(folder), item)


def _base_of(workspace: Workspace, folder: Path, override: str | None, trust: bool) -> BaseRef:
    if override is not None:
        return find_base(workspace, override, None, trust)
    noted = read_card(folder).get("base") or {}
    path = folder / "adapter_config.json"
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix="restore that file or copy the adapter again") from error
    ref = noted.get("ref") or config.get("base_model_name_or_path")
    if not ref:
        raise ArtifactError(f"adapter {folder} does not say which base it was trained on", fix="add --base")
    return find_base(workspace, ref, noted.get("revision") or config.get("revision"), trust)


def prompt_settings(card: dict[str, Any], base: BaseRef) -> PromptSettings:
    """Return how a model wants to be asked: as its adapter was taught, else as its base was."""
    noted = card.get("prompt") or base_card(base.folder).get("prompt") or {}
    return PromptSettings(**noted)


def base_label(workspace: Workspace, ref: str) -> str:
    """Return a short word for a base, used in run names.

    A run of `base pretrain` goes by its name, a folder by its last part, a Hugging Face id by what stands behind the slash.
    """
    folder = Path(ref).expanduser()
    if folder.name == MODEL_DIR and (folder.parent / "manifest.json").is_file():
        return folder.resolve().parent.parent.name
    name = ref.partition("@")[0].rstrip("/").rpartition("/")[2]
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name).lstrip("._-") or "base"


def base_input(workspace: Workspace, base: BaseRef, fingerprint: str) -> Input:
    """Describe a base model as an input: a `base pretrain` run as such, any other by its fingerprint."""
    run = base.folder.parent if base.folder is not None else None
    manifest = read_manifest(run) if run is not None and (run / "manifest.json").is_file() else None
    if run is not None and manifest is not None and manifest.stage == "base":
        return Found(run, manifest).as_input("base", workspace)
    return Input("base", base.ref, base.source, fingerprint)
