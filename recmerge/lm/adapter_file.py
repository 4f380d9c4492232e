"""A LoRA adapter in peft's format, read from its files alone: no model, no peft."""

import contextlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmerge.errors import ArtifactError
from recmerge.lm.tensor_file import TensorFile
from recmerge.names import ADAPTER_CARD
from recmerge.runs.manifest import read_manifest, sha256_json

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
CARD_SCHEMA = 1
Matrix = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
# Settings under which an adapter is more than base + scaling * B @ A, or its base is not the base as downloaded.
_MORE_THAN_LORA = (
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "use_qalora",
    "use_bdlora",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "layer_replication",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "megatron_config",
)
_PLAIN_INITS = (True, False, None, "gaussian", "eva", "orthogonal")


class AdapterFile:
    """An adapter folder: `adapter_config.json`, `adapter_model.safetensors` and, if recmerge wrote it, its card.

    Opening reads the headers only and refuses everything that is not plain LoRA.

    Args:
        folder: The adapter's folder.
        label: What to call it in errors and reports; the folder by default.

    Raises:
        ArtifactError: The folder is missing, incomplete, corrupt, holds pickle files only, or is no plain LoRA adapter.
    """

    def __init__(self, folder: Path, label: str = "") -> None:
        self.path = folder
        self.label = label or str(folder)
        self.config = _read_config(folder)
        self.card = _read_card(folder)
        _refuse_variants(self.config, self.label)
        self.weights_path = _weights_path(folder)
        self._file = TensorFile(self.weights_path)
        self._scanned: tuple[str, str | None] | None = None
        self._keys = _pair_keys(self._file, self.label)
        self.modules: tuple[str, ...] = tuple(sorted(self._keys))
        self._scalings = {module: self._own_scaling(module) for module in self.modules}

    @property
    def sha256(self) -> str:
        """Hash of the weights file as it was when its numbers were first asked about, as hex."""
        return self._scan()[0]

    def _scan(self) -> tuple[str, str | None]:
        if self._scanned is None:  # no cached_property: before Python 3.12 its lock lets only one adapter be read at a time
            self._scanned = self._file.scan()
        return self._scanned

    @property
    def content_sha256(self) -> str:
        """One hash of the weights, config and card."""
        return sha256_json([self.sha256, self.config, self.card])

    @property
    def base_ref(self) -> str | None:
        """The base model as the adapter names it."""
        return self.config.get("base_model_name_or_path") or (self.card or {}).get("base", {}).get("ref")

    @property
    def fan_in_fan_out(self) -> bool:
        """Whether the base stores these weights transposed, (in, out), as GPT-2's Conv1D does."""
        return bool(self.config.get("fan_in_fan_out"))

    def __contains__(self, module: object) -> bool:
        return module in self._keys

    def rank(self, module: str) -> int:
        """Return a module's rank."""
        return self._file.tensors[self._keys[module][1]].shape[0]

    def shape(self, module: str) -> tuple[int, int]:
        """Return (out, in) of the weight that the module changes."""
        key_b, key_a = self._keys[module]
        return self._file.tensors[key_b].shape[0], self._file.tensors[key_a].shape[1]

    def n_parameters(self) -> int:
        """Return the number of stored numbers."""
        return sum(math.prod(info.shape) for info in self._file.tensors.values())

    def scaling(self, module: str) -> float:
        """Return what B @ A is multiplied by: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA."""
        return self._scalings[module]

    def factors(self, module: str) -> tuple[Matrix, Matrix]:
        """Return B (out, R) and A (R, in) in float64, without the scaling."""
        key_b, key_a = self._keys[module]
        return self._file.read(key_b), self._file.read(key_a)

    def narrow_factors(self, module: str) -> tuple[Floats, Floats]:
        """Return the same B and A, each in float32 where that holds its stored numbers exactly."""
        key_b, key_a = self._keys[module]
        return self._file.read_narrow(key_b), self._file.read_narrow(key_a)

    def verify(self) -> None:
        """Check every number and, where a record of it exists, the weights' hash.

        Raises:
            ArtifactError: A tensor holds NaN or infinity or no floats, or the file is not the one that was written.
        """
        for keys in self._keys.values():
            for key in keys:
                self._file.float_type(key)
        self._verify_hash()
        if self._scan()[1] is not None:
            raise ArtifactError(f"{self.weights_path}: tensor {self._scan()[1]} holds NaN or infinity", fix="that training diverged; train it again")

    def _verify_hash(self) -> None:
        expected = (self.card or {}).get("weights_sha256")
        manifest = None
        with contextlib.suppress(ArtifactError):  # another tool's manifest.json is none of ours
            manifest = read_manifest(self.path.parent)
        for output in manifest.outputs if manifest else ():
            if output["path"] == f"{self.path.name}/{WEIGHTS_FILE}":
                expected = output["sha256"]
        if expected and expected != self.sha256:
            raise ArtifactError(
                f"{self.weights_path} was changed after it was written: sha256 {self.sha256[:12]}..., recorded {str(expected)[:12]}...",
                fix="restore that file or make the adapter again",
            )

    def _own_scaling(self, module: str) -> float:
        key_b, key_a = self._keys[module]
        shape_b, shape_a = self._file.tensors[key_b].shape, self._file.tensors[key_a].shape
        if len(shape_a) != 2 or len(shape_b) != 2 or shape_b[1] != shape_a[0]:
            raise ArtifactError(f"{self.label}: module {module} has B {shape_b} and A {shape_a}, no linear layer's factors", fix="give a LoRA of linear layers")
        rank = _by_pattern(self.config.get("rank_pattern"), module, self.config.get("r"), self.label)
        alpha = _by_pattern(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha"), self.label)
        if not rank > 0 or int(rank) != shape_a[0]:
            raise ArtifactError(f"{self.label}: module {module} has rank {shape_a[0]}, its {CONFIG_FILE} says {rank:g}", fix="restore the adapter's own config")
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder looks like an adapter's."""
    return (folder / CONFIG_FILE).is_file()


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not folder.is_dir():
        raise ArtifactError(f"adapter folder {folder} does not exist", fix="`recmerge runs list` shows what exists")
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {CONFIG_FILE}, so it is no adapter", fix="give the folder that peft's save_pretrained wrote")
    config = _read_json(path)
    if config.get("peft_type") != "LORA":
        raise ArtifactError(f"{path}: peft_type is {config.get('peft_type')!r}, allowed: 'LORA'", fix="give a LoRA adapter")
    return config


def _read_card(folder: Path) -> dict[str, Any] | None:
    path = folder / ADAPTER_CARD
    if not path.is_file():
        return None
    card = _read_json(path)
    if card.get("schema") != CARD_SCHEMA:
        raise ArtifactError(f"{path}: schema is {card.get('schema')!r}, this version reads {CARD_SCHEMA}", fix="use the recmerge that wrote it")
    if not isinstance(card.get("base", {}), dict):
        raise ArtifactError(f"{path}: base is no mapping", fix="restore the file or make the adapter again")
    return card


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix="restore the file or make the adapter again") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds no JSON object", fix="restore the file or make the adapter again")
    return value


def _refuse_variants(config: Mapping[str, Any], label: str) -> None:
    set_here = [name for name in _MORE_THAN_LORA if config.get(name)]
    if config.get("bias", "none") != "none":
        set_here.append(f"bias={config['bias']}")
    if config.get("init_lora_weights", True) not in _PLAIN_INITS:
        set_here.append(f"init_lora_weights={config['init_lora_weights']}")
    if set_here:
        raise ArtifactError(f"{label} is no plain LoRA: its config has {', '.join(set_here)}", fix="train plain LoRA adapters (rslora is supported)")


def _weights_path(folder: Path) -> Path:
    path = folder / WEIGHTS_FILE
    if path.is_file():
        return path
    pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
    if pickles:
        raise ArtifactError(
            f"{folder} holds its weights as pickle ({', '.join(pickles)}), which can run code and is never opened",
            fix=f"save it as {WEIGHTS_FILE} where you trust it",
        )
    raise ArtifactError(f"{folder} holds no {WEIGHTS_FILE}", fix="restore that file or make the adapter again")


def _pair_keys(file: TensorFile, label: str) -> dict[str, tuple[str, str]]:
    """Match keys to modules: module -> (key of B, key of A)."""
    sides: dict[str, dict[str, str]] = {}
    odd: list[str] = []
    for key in file.tensors:
        match = _KEY.fullmatch(key)
        found = sides.setdefault(match["module"], {}) if match else {}
        if match is None or match["side"] in found:  # a second adapter's name in the same file
            odd.append(key)
        else:
            found[match["side"]] = key
    odd += [key for found in sides.values() if len(found) == 1 for key in found.values()]
    if odd or not sides:
        shown = ", ".join(odd[:3]) or "none at all"
        raise ArtifactError(f"{label}: {len(odd)} keys are no pair of lora_A and lora_B weights: {shown}", fix="give one plain LoRA adapter of linear layers")
    return {module: (found["B"], found["A"]) for module, found in sides.items()}


def _by_pattern(pattern: object, module: str, default: object, label: str) -> float:
    """Look a module up in rank_pattern or alpha_pattern, by peft's rule."""
    value = default
    for key, own in pattern.items() if isinstance(pattern, dict) else ():
        try:
            matched = re.match(rf"(.*\.)?({key})$", module)
        except re.error as error:
            raise ArtifactError(f"{label}: pattern {key!r} in {CONFIG_FILE} is no regular expression: {error}", fix="mend that pattern") from error
        if matched:
            value = own
            break
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ArtifactError(f"{label}: module {module} has r or lora_alpha {value!r}, allowed: a number", fix=f"restore its {CONFIG_FILE}")
    return float(value)
