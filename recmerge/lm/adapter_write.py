"""Write a LoRA adapter that plain peft loads: weights, config, card and model card; equal input gives equal bytes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmerge.errors import ArtifactError
from recmerge.lm.adapter_file import CONFIG_FILE, WEIGHTS_FILE, AdapterFile
from recmerge.lm.tensor_file import TensorWriter, narrow
from recmerge.names import ADAPTER_CARD
from recmerge.runs.manifest import sha256_file

README = "README.md"
Factors = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class AdapterShape:
    """What a written adapter's config says besides its rank.

    Args:
        base_model: The base model's name or path.
        target_modules: Module names as peft matches them.
        task_type: peft's task, e.g. "CAUSAL_LM".
        revision: The base's revision.
        fan_in_fan_out: Whether the base stores its weights transposed.
    """

    base_model: str | None
    target_modules: Sequence[str]
    task_type: str | None = "CAUSAL_LM"
    revision: str | None = None
    fan_in_fan_out: bool = False


@dataclass(frozen=True)
class ModelCard:
    """What the README says.

    Args:
        title: The heading.
        body: Markdown below it.
        tags: Tags for the front matter.
        licence: Of the base, where known.
    """

    title: str
    body: str
    tags: Sequence[str] = field(default=("lora", "recmerge"))
    licence: str | None = None


def target_modules_of(adapters: Sequence[AdapterFile]) -> list[str]:
    """Return the target_modules under which peft finds exactly the adapters' modules.

    Where every adapter lists plain suffixes, their union; where one uses a pattern or picks layers, full module names.
    """
    modules = {module for adapter in adapters for module in adapter.modules}
    suffixes: set[str] = set()
    for adapter in adapters:
        targets = adapter.config.get("target_modules")
        picked = any(adapter.config.get(key) for key in ("layers_to_transform", "layers_pattern", "exclude_modules"))
        if not isinstance(targets, list) or picked:
            return sorted(modules)
        suffixes.update(str(t) for t in targets)
    covered = all(any(m == t or m.endswith(f".{t}") for t in suffixes) for m in modules)
    return sorted(suffixes) if covered else sorted(modules)


def pad_rank(factors: Factors, rank: int) -> Factors:
    """Widen B (out, r) and A (r, in) to `rank` with zeros; their product stays the same."""
    b, a = factors
    missing = rank - b.shape[1]
    return (b, a) if missing == 0 else (np.pad(b, ((0, 0), (0, missing))), np.pad(a, ((0, missing), (0, 0))))


def write_adapter(folder: Path, modules: Mapping[str, Factors], shape: AdapterShape, dtype: str, card: Mapping[str, Any], readme: ModelCard) -> int:
    """Write an adapter folder whose scaling is 1.

    Modules of lower rank are padded with zeros, so that one `r` holds for all and no pattern is needed.

    Args:
        folder: A new folder.
        modules: module -> B (out, r) and A (r, in); B carries every weight and scaling.
        shape: The rest of the config.
        dtype: The file's spelling: "F32", "BF16" or "F16".
        card: What recmerge knows of the adapter; the weights' hash is added.
        readme: What the model card says.

    Returns:
        The uniform rank.

    Raises:
        ArtifactError: A number does not fit `dtype`.
    """
    folder.mkdir(parents=True)
    rank = max(1, max(b.shape[1] for b, _ in modules.values()))
    _write_weights(folder / WEIGHTS_FILE, modules, rank, dtype)
    _write_json(folder / CONFIG_FILE, _config(shape, rank))
    _write_json(folder / ADAPTER_CARD, {**card, "weights_sha256": sha256_file(folder / WEIGHTS_FILE)})
    (folder / README).write_text(_readme(shape, readme), encoding="utf-8")
    return rank


def _write_weights(path: Path, modules: Mapping[str, Factors], rank: int, dtype: str) -> None:
    layout: dict[str, tuple[str, tuple[int, int]]] = {}
    for module, (b, a) in sorted(modules.items()):
        layout[_key(module, "A")] = (dtype, (rank, a.shape[1]))
        layout[_key(module, "B")] = (dtype, (b.shape[0], rank))
    with TensorWriter(path, layout, {"format": "pt"}) as out:
        for module, factors in sorted(modules.items()):
            b, a = pad_rank(factors, rank)
            for side in (a, b):
                if dtype == "F16" and side.size and np.abs(side).max() > np.finfo(np.float16).max:
                    raise ArtifactError(f"module {module} holds numbers beyond float16 ({np.abs(side).max():.3g})", fix="use --dtype bfloat16 or float32")
                out.write(narrow(side, dtype))


def _key(module: str, side: str) -> str:
    return f"base_model.model.{module}.lora_{side}.weight"


def _config(shape: AdapterShape, rank: int) -> dict[str, Any]:
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": shape.base_model,
        "bias": "none",
        "fan_in_fan_out": shape.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "revision": shape.revision,
        "target_modules": list(shape.target_modules),
        "task_type": shape.task_type,
        "use_dora": False,
        "use_rslora": False,
    }


def _readme(shape: AdapterShape, readme: ModelCard) -> str:
    base = shape.base_model
    is_hub_id = base is not None and base.count("/") <= 1 and not base.startswith(("/", ".", "~"))  # front matter may name nothing else
    front = ["---", *([f"base_model: {json.dumps(base, ensure_ascii=False)}"] if is_hub_id else []), "library_name: peft"]
    if readme.licence:
        front.append(f"license: {readme.licence}")
    front += ["tags:", *(f"  - {tag}" for tag in readme.tags), "---"]
    load = [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({(base if is_hub_id else 'path/to/the/base')!r})",
        "model = PeftModel.from_pretrained(base, 'path/to/this/folder')",
        "```",
    ]
    return "\n".join([*front, "", f"# {readme.title}", "", readme.body.rstrip(), "", "## Load it", "", *load, ""])


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
