"""What a merged adapter or model says of itself."""

from collections.abc import Sequence
from typing import Any

from recmerge.lm.adapter_file import CARD_SCHEMA, AdapterFile
from recmerge.lm.adapter_write import ModelCard
from recmerge.merging.check import base_of
from recmerge.merging.recipe import Recipe

_METHODS = {
    "weaverec": "the mean of the adapters' changes (WeaveRec): sum of w_i s_i B_i A_i",
    "product": "the weighted sum of the adapters' changes: sum of w_i s_i B_i A_i",
    "factor": "A and B averaged apart (the WeaveRec paper's formula): s (sum of w_i B_i) (sum of w_i A_i)",
    "linear": "peft's `linear` rule, which holds cross terms B_i A_j and is kept for comparison",
    "task_arithmetic": "the weighted sum of the adapters' changes (task arithmetic): lambda times the sum of w_i s_i B_i A_i",
    "ties": "TIES on the exact changes: trim to the largest entries, elect a sign, average the entries that have it",
    "dare_linear": "DARE on the exact changes: drop entries at random, rescale, add with weights",
    "dare_ties": "DARE on the exact changes, then TIES: drop entries at random, rescale, elect a sign, average",
    "magnitude_prune": "the largest entries of each exact change, added with weights",
    "lora_lego": "LoRA-LEGO: the rank-one units of all adapters clustered, the centroids rescaled",
}
_RANKS = {
    "cat": "stacked factors: exact, the ranks add up",
    "fold": "added to the base model's weights in float64, rounded once",
}


def merged_card(adapters: Sequence[AdapterFile], recipe: Recipe, kind: str) -> dict[str, Any]:
    """Return the card beside merged weights; prompt, base and tokenizer are those of the first adapter that has a card.

    Args:
        adapters: M adapters that went in.
        recipe: How.
        kind: "adapter" or "model".

    Returns:
        A JSON-like dict.
    """
    first = next((a for a in adapters if a.card), adapters[0])
    known = first.card or {}
    said = base_of(first)
    card = {
        "schema": CARD_SCHEMA,
        "kind": kind,
        "base": known.get("base") or {k: said[k] for k in ("ref", "revision", "fingerprint")},
        "tokenizer_sha256": known.get("tokenizer_sha256"),
        "lora_init_sha256": None,  # the merged A is no longer the one that training started from
        "domains": list(recipe.domains),
        "splits": _splits(adapters),
        "method": recipe.method,
        "rank_out": recipe.rank_out,
        "options": dict(recipe.options),
        "merged_from": [{"label": a.label, "sha256": a.sha256, "weight": w} for a, w in zip(adapters, recipe.weights, strict=True)],
    }
    return card | ({"prompt": known["prompt"]} if "prompt" in known else {})


def _splits(adapters: Sequence[AdapterFile]) -> list[dict[str, int]]:
    """Return how the adapters' training data was split, each way once; what an adapter does not say is left out."""
    found: list[dict[str, int]] = []
    for noted in (split for a in adapters for split in (a.card or {}).get("splits", [])):
        found += [] if noted in found else [noted]
    return found


def readme(name: str, adapters: Sequence[AdapterFile], recipe: Recipe) -> ModelCard:
    """Return what an adapter's README says."""
    return ModelCard(title=name, body=_body(adapters, recipe), tags=("lora", "recmerge", "recommendation", recipe.method))


def model_readme(name: str, adapters: Sequence[AdapterFile], recipe: Recipe) -> str:
    """Return a folded model's README."""
    front = f"---\nlibrary_name: transformers\ntags:\n  - recmerge\n  - recommendation\n  - {recipe.method}\n---\n\n"
    return f"{front}# {name}\n\n{_body(adapters, recipe)}\n\nLoad it with `AutoModelForCausalLM.from_pretrained`; it needs no adapter.\n"


def _body(adapters: Sequence[AdapterFile], recipe: Recipe) -> str:
    rows = "\n".join(f"| `{a.label}` | {w:.6g} | `{a.sha256[:12]}` |" for a, w in zip(adapters, recipe.weights, strict=True))
    rank = _RANKS.get(recipe.rank_out, f"the best rank {recipe.rank_out.partition(':')[2]} in Frobenius norm (`{recipe.rank_out}`)")
    lines = [
        f"Made by `recmerge merge` from {len(adapters)} LoRA adapters" + (f", for {', '.join(recipe.domains)}." if recipe.domains else "."),
        "",
        f"- Method: `{recipe.method}`: {_METHODS.get(recipe.method, recipe.method)}",
        *([f"- Options: {', '.join(f'{k} {v}' for k, v in recipe.options.items())}"] if recipe.options else []),
        f"- Rank: {rank}",
        "- The weights and every adapter's own scaling are inside: the scaling to load with is 1.",
        "",
        "| adapter | weight | sha256 of its weights |\n|---|---:|---|",
        rows,
    ]
    return "\n".join(lines)
