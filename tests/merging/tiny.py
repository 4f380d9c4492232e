"""Adapters small enough to know by heart, written as peft writes them; and peft's own, on a random Qwen2."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from recmerge.lm.adapter_write import AdapterLayout, AdapterShape, ModelCard, write_adapter
from recmerge.merging import METHODS
from recmerge.merging.combine import Merger
from recmerge.merging.parts import Dense, LoraFactors, LowRank
from recmerge.merging.recipe import Recipe
from recmerge.merging.rounding import round_factors

Q = "model.layers.0.self_attn.q_proj"
V = "model.layers.0.self_attn.v_proj"
Matrix = Any


def write_lora(folder: Path, modules: Mapping[str, tuple[Matrix, Matrix]], *, card: Mapping[str, Any] | None = None, key: str = "", **config: Any) -> Path:
    """Write an adapter: module -> (B, A); `key` goes between lora_A and weight, `config` over the defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, (b, a) in modules.items():
        tensors[f"base_model.model.{module}.lora_A{key}.weight"] = np.array(a, dtype=np.float32)
        tensors[f"base_model.model.{module}.lora_B{key}.weight"] = np.array(b, dtype=np.float32)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = next(iter(tensors.values())).shape[0]
    defaults: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "some/base",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({m.rpartition(".")[2] for m in modules}),
        "bias": "none",
        "use_rslora": False,
        "fan_in_fan_out": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (folder / "adapter_config.json").write_text(json.dumps({**defaults, **config}))
    if card is not None:
        (folder / "recmerge.json").write_text(json.dumps({"schema": 1, "kind": "adapter", **card}))
    return folder


def random_lora(folder: Path, seed: int, rank: int = 2, modules: Sequence[str] = (Q, V), out: int = 6, width: int = 5, **more: Any) -> Path:
    """Write an adapter of random numbers."""
    draw = np.random.default_rng(seed)
    return write_lora(folder, {m: (draw.normal(size=(out, rank)), draw.normal(size=(rank, width))) for m in modules}, **more)


def stream_lora(
    folder: Path,
    modules: Mapping[str, tuple[Matrix, Matrix]],
    shape: AdapterShape,
    rank: int = 0,
    dtype: str = "F32",
    card: Mapping[str, Any] | None = None,
    readme: ModelCard | None = None,
) -> str:
    """Write an adapter by recmerge's own writer: module -> (B, A)."""
    meant = {m: LowRank(np.array(b, np.float64), np.array(a, np.float64)) for m, (b, a) in modules.items()}
    layout = AdapterLayout({m: (d.height, d.A.shape[1]) for m, d in meant.items()}, rank or max(d.rank for d in meant.values()), dtype)
    factors = ((m, round_factors(layout, m, meant[m]).stored) for m in layout.modules)
    return write_adapter(folder, layout, factors, shape, card or {"schema": 1}, readme or ModelCard("x", "y"))


class Loose:
    """An adapter that lies nowhere: module -> factors; what merging asks of an `AdapterFile`."""

    def __init__(self, modules: Mapping[str, LoraFactors]) -> None:
        self._modules = {name: f for name, f in modules.items() if f.rank}
        self.modules = tuple(sorted(self._modules))
        numbers = b"".join(f.B.tobytes() + f.A.tobytes() for f in self._modules.values())
        self.sha256 = hashlib.sha256(numbers).hexdigest()

    def __contains__(self, module: object) -> bool:
        return module in self._modules

    def factors(self, module: str) -> tuple[Matrix, Matrix]:
        return self._modules[module].B, self._modules[module].A

    narrow_factors = factors

    def scaling(self, module: str) -> float:
        return self._modules[module].scaling

    def rank(self, module: str) -> int:
        return self._modules[module].rank

    def shape(self, module: str) -> tuple[int, int]:
        return self._modules[module].B.shape[0], self._modules[module].A.shape[1]


def full(matrix: Matrix, scaling: float = 1.0) -> LoraFactors:
    """Return factors whose task vector is any small matrix."""
    b = np.array(matrix, dtype=np.float64) / scaling
    return LoraFactors(b, np.eye(b.shape[1]), scaling)


def merger(name: str, adapters: Sequence[Any], weights: Sequence[float], rank_out: str = "fold", **options: Any) -> Merger:
    """Make a merger with a method's default options but these; `lambda_` stands for lambda."""
    largest = max((a.rank(m) for a in adapters for m in a.modules), default=1)
    chosen = {**METHODS[name].options, **{k.rstrip("_"): v for k, v in options.items()}}
    return Merger(adapters, Recipe(name, weights, rank_out, {k: largest if k == "clusters" and v is None else v for k, v in chosen.items()}))


def merged(name: str, factors: Sequence[LoraFactors], weights: Sequence[float] | None = None, **options: Any) -> Matrix:
    """Merge adapters of one module, in full: (out, in)."""
    delta = merger(name, [Loose({"m": f}) for f in factors], weights or [1.0] * len(factors), **options).module("m").delta
    return delta.matrix if isinstance(delta, Dense) else delta.B @ delta.A


def tiny_qwen2(seed: int = 0, dtype: str = "float32", tie: bool = True) -> Any:
    """Return a random Qwen2 of two layers."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tie,
    )
    return Qwen2ForCausalLM(config).to(getattr(torch, dtype)).eval()


def peft_adapters(folder: Path, base: Path, settings: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Save one adapter of random A and B per LoraConfig, by peft itself."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    paths = []
    for i, extra in enumerate(settings):
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), LoraConfig(**{"target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM", **extra})
        )
        torch.manual_seed(100 + i)
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(tensor, std=0.1)
        paths.append(folder / f"adapter{i}")
        model.save_pretrained(paths[-1])
    return paths


def peft_deltas(base: Path, adapter: Path) -> dict[str, Any]:
    """Return what plain peft adds to every weight, from a saved adapter: module -> (out, in), float64."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    found = {}
    for name, layer in model.base_model.model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            weights = layer.lora_A["default"].weight.double(), layer.lora_B["default"].weight.double()
            found[name] = (weights[1] @ weights[0] * layer.scaling["default"]).detach().numpy()
            single = layer.get_delta_weight("default").detach().numpy()
            assert np.allclose(found[name], single, atol=1e-5)
    return found
