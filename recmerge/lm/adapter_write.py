"""Write a LoRA adapter that plain peft loads: weights, config, card and model card; equal input gives equal bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmerge.errors import ArtifactError
from recmerge.lm.adapter_file import CONFIG_FILE, WEIGHTS_FILE, AdapterFile
from recmerge.lm.tensor_file import TensorWriter, narrow
from recmerge.names import ADAPTER_CARD

README = "README.md"
StoredFactors = tuple[NDArray[np.generic], NDArray[np.generic]]


@dataclass(frozen=True)
class AdapterLayout:
    """What a weights file will hold: known, and its header written, before the first module is computed.

    Modules of lower rank are padded with zeros, so that one `r` holds for all and no pattern is needed.

    Args:
        shapes: module -> (out, in) of the weight that it changes.
        rank: Of every module, at least 1.
        dtype: The file's spelling: "F32", "BF16" or "F16".
    """

    shapes: Mapping[str, tuple[int, int]]
    rank: int
    dtype: str = "F32"

    @property
    def modules(self) -> list[str]:
        """The modules in the file's order."""
        return sorted(self.shapes)

    @property
    def stored_type(self) -> np.dtype[Any]:
        """The type of numpy's arrays that are written."""
        return narrow(np.zeros(1), self.dtype).dtype

    def round(self, module: str, values: NDArray[np.floating[Any]]) -> NDArray[np.generic]:
        """Round numbers once.

        Args:
            module: Whose they are, for the error.
            values: Any of them.

        Returns:
            What the file stores; `values` itself where they are stored as they are.

        Raises:
            ArtifactError: One does not fit `dtype`.
        """
        if self.dtype == "F16" and values.size and np.abs(values).max() > np.finfo(np.float16).max:
            raise ArtifactError(f"module {module} holds numbers beyond float16 ({np.abs(values).max():.3g})", fix="use --dtype bfloat16 or float32")
        return narrow(values, self.dtype)


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


def write_adapter(
    folder: Path, layout: AdapterLayout, factors: Iterable[tuple[str, StoredFactors]], shape: AdapterShape, card: Mapping[str, Any], readme: ModelCard
) -> str:
    """Write an adapter folder whose scaling is 1, one module after the other: none is held once it is written.

    Args:
        folder: A new folder.
        layout: What the weights file holds.
        factors: Every module of the layout in its order, with B (out, rank) and A (rank, in) as the file holds them.
        shape: The rest of the config.
        card: What recmerge knows of the adapter; the weights' hash is added.
        readme: What the model card says.

    Returns:
        The hash of the weights as they were handed to the file, and as they lie there.

    Raises:
        ArtifactError: The file does not hold what was written to it.
    """
    folder.mkdir(parents=True)
    header: dict[str, tuple[str, tuple[int, int]]] = {}
    for module in layout.modules:
        out, width = layout.shapes[module]
        header[_key(module, "A")] = (layout.dtype, (layout.rank, width))
        header[_key(module, "B")] = (layout.dtype, (out, layout.rank))
    with TensorWriter(folder / WEIGHTS_FILE, header, {"format": "pt"}, read_back=True) as file:
        for meant, (module, (b, a)) in zip(layout.modules, factors, strict=True):
            assert meant == module
            file.write(a)
            file.write(b)
    _write_json(folder / CONFIG_FILE, _config(shape, layout.rank))
    _write_json(folder / ADAPTER_CARD, {**card, "weights_sha256": file.sha256})
    (folder / README).write_text(_readme(shape, readme), encoding="utf-8")
    return file.sha256


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
