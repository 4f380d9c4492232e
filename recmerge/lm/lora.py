"""Attach a fresh or a trained LoRA adapter to a model, and record what it belongs to."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from recmerge.data.splitting import Cuts
from recmerge.errors import ArtifactError, ConfigError
from recmerge.lm.encoding import PromptSettings
from recmerge.names import ADAPTER_CARD

CARD_SCHEMA = 1


def new_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: str | Sequence[str],
    use_rslora: bool,
    init_seed: int,
) -> Any:
    """Put a fresh adapter on every target module; B starts at zero, A from `init_seed`.

    Adapters of one base that share `init_seed` start from equal A matrices, which the `factor` merge assumes.

    Args:
        model: A causal language model; its own weights are frozen.
        rank: r, at least 1.
        alpha: Numerator of the scaling alpha / r (alpha / sqrt(r) with rslora).
        dropout: On the adapter's input, in [0, 1).
        target_modules: all-linear, or names of modules.
        use_rslora: Rank-stabilised scaling.
        init_seed: Seed of A's initialisation.

    Returns:
        The peft model.

    Raises:
        ConfigError: The target modules do not exist in the model.
    """
    names = target_modules if isinstance(target_modules, str) else list(target_modules)
    if names == "all-linear":
        names = linear_names(model)
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, use_rslora=use_rslora, bias="none", task_type=TaskType.CAUSAL_LM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(init_seed)
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            raise ConfigError(
                f"lora.target_modules = {target_modules!r}: {str(error)[:200]}", fix="use all-linear, or names of the model's linear modules"
            ) from error


def linear_names(model: Any) -> list[str]:
    """Return the last names of all linear modules but the output layer: q_proj, k_proj ... as other tools expect them."""
    head = model.get_output_embeddings()
    found = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, Conv1D)) and module is not head}
    return sorted(found)


def init_sha256(model: Any) -> str:
    """Return a hash over all A matrices, taken before training: equal hashes mean a shared initialisation."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        if "lora_A" in name:
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def can_be_merged(model: Any) -> bool:
    """Whether an adapter's change can be added to the weights: not where it changes one of two layers that share them."""
    base = model.get_base_model()
    ends = [base.get_input_embeddings(), base.get_output_embeddings()]
    if not all(hasattr(end, "weight") for end in ends) or ends[0].weight is not ends[1].weight:
        return True
    return not any(hasattr(end, "lora_A") for end in ends)


def load_lora(model: Any, folder: Path) -> Any:
    """Attach a trained adapter for inference.

    Args:
        model: The base model it was trained on.
        folder: A folder in peft's format.

    Returns:
        The peft model in eval mode.

    Raises:
        ArtifactError: It is missing, damaged, a pickle, or does not fit the model.
    """
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise ArtifactError(f"adapter {folder} has no adapter_model.safetensors (pickled .bin files are not read)", fix="save it with safe_serialization=True")
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        text = " ".join(str(error).split())[:200]
        raise ArtifactError(f"adapter {folder} cannot be loaded on this base: {text}", fix="check that it was trained on this base model") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ArtifactError(f"adapter {folder} is damaged: {error}", fix="train or merge it again") from error
        raise
    _check_all_used(adapted, weights)
    for name, tensor in adapted.named_parameters():
        if "lora_" in name and not torch.isfinite(tensor).all():
            raise ArtifactError(f"adapter {folder} holds NaN or infinite values in {name}", fix="train or merge it again")
    return adapted.eval()


def _check_all_used(adapted: Any, weights: Path) -> None:
    """Refuse an adapter of which a part found no place in the model: peft itself would only warn."""
    with safe_open(str(weights), framework="pt") as file:
        written = set(file.keys())
    whole_layers = any(key.endswith(("embed_tokens.weight", "lm_head.weight")) for key in written)  # "auto" would ask the hub for the base's config
    unused = sorted(written - get_peft_model_state_dict(adapted, save_embedding_layers=whole_layers).keys())
    if unused:
        raise ArtifactError(
            f"{len(unused)} of the {len(written)} tensors of {weights} have no place in this base, e.g. {', '.join(unused[:3])}",
            fix="check that it was trained on this base model",
        )


def adapter_card(
    *,
    base: dict[str, Any],
    tokenizer_sha: str,
    init_sha: str,
    domains: Sequence[str],
    cuts: Collection[Cuts | None],
    prompt: PromptSettings,
    data: dict[str, str],
) -> dict[str, Any]:
    """Return what recmerge notes beside an adapter's weights, so that merging and inference need no run directory.

    Args:
        base: Its `ref`, `revision` and `fingerprint`.
        tokenizer_sha: Hash of the tokenizer it was trained with.
        init_sha: Hash of A before training.
        domains: Domains in its training data.
        cuts: The points in time that they are split at; None: split by leave_one_out.
        prompt: How it was asked.
        data: `name` and `content_sha256` of its training data.

    Returns:
        A JSON-like dict.
    """
    return {
        "schema": CARD_SCHEMA,
        "kind": "adapter",
        "base": base,
        "tokenizer_sha256": tokenizer_sha,
        "lora_init_sha256": init_sha,
        "domains": list(domains),
        "splits": [{} if c is None else {"valid_from": c.valid, "test_from": c.test} for c in cuts],
        "prompt": asdict(prompt),
        "data": data,
    }


def read_card(folder: Path) -> dict[str, Any]:
    """Read the note beside an adapter; empty for adapters made elsewhere.

    Args:
        folder: The adapter's folder.

    Returns:
        The note, see `adapter_card`.

    Raises:
        ArtifactError: The note cannot be read.
    """
    path = folder / ADAPTER_CARD
    if not path.is_file():
        return {}
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {error}", fix="train or merge the adapter again") from error
    return card


def settle_adapter_config(folder: Path, base_ref: str, revision: str | None) -> None:
    """Make peft's adapter_config.json the same bytes every time: sorted modules, a plain base name."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = base_ref
    config["revision"] = revision
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
