"""What a merged adapter or model says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recmerge.lm.adapter_file import CARD_SCHEMA, AdapterFile
from recmerge.lm.adapter_write import ModelCard
from recmerge.merging.check import base_of

_METHODS = {
    "weaverec": "the mean of the adapters' changes (WeaveRec): sum of w_i s_i B_i A_i",
    "product": "the weighted sum of the adapters' changes: sum of w_i s_i B_i A_i",
    "factor": "A and B averaged apart (the WeaveRec paper's formula): s (sum of w_i B_i) (sum of w_i A_i)",
    "linear": "peft's `linear` rule, which holds cross terms B_i A_j and is kept for comparison",
}
_RANKS = {
    "cat": "stacked factors: exact, the ranks add up",
    "fold": "added to the base model's weights in float64, rounded once",
}


@dataclass(frozen=True)
class About:
    """How something was merged.

    Args:
        method: A name of `METHODS`.
        weights: One per adapter.
        rank_out: "cat", "svd:R" or "fold".
        domains: The domains it is for.
    """

    method: str
    weights: Sequence[float]
    rank_out: str
    domains: Sequence[str]


def merged_card(adapters: Sequence[AdapterFile], about: About, kind: str) -> dict[str, Any]:
    """Return the card beside merged weights; prompt, base and tokenizer are those of the first adapter that has a card.

    Args:
        adapters: M adapters that went in.
        about: How.
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
        "domains": list(about.domains),
        "method": about.method,
        "rank_out": about.rank_out,
        "merged_from": [{"label": a.label, "sha256": a.sha256, "weight": w} for a, w in zip(adapters, about.weights, strict=True)],
    }
    return card | ({"prompt": known["prompt"]} if "prompt" in known else {})


def readme(name: str, adapters: Sequence[AdapterFile], about: About) -> ModelCard:
    """Return what an adapter's README says."""
    return ModelCard(title=name, body=_body(adapters, about), tags=("lora", "recmerge", "recommendation", about.method))


def model_readme(name: str, adapters: Sequence[AdapterFile], about: About) -> str:
    """Return a folded model's README."""
    front = f"---\nlibrary_name: transformers\ntags:\n  - recmerge\n  - recommendation\n  - {about.method}\n---\n\n"
    return f"{front}# {name}\n\n{_body(adapters, about)}\n\nLoad it with `AutoModelForCausalLM.from_pretrained`; it needs no adapter.\n"


def _body(adapters: Sequence[AdapterFile], about: About) -> str:
    rows = "\n".join(f"| `{a.label}` | {w:.6g} | `{a.sha256[:12]}` |" for a, w in zip(adapters, about.weights, strict=True))
    rank = _RANKS.get(about.rank_out, f"the best rank {about.rank_out.partition(':')[2]} in Frobenius norm (`{about.rank_out}`)")
    lines = [
        f"Made by `recmerge merge` from {len(adapters)} LoRA adapters" + (f", for {', '.join(about.domains)}." if about.domains else "."),
        "",
        f"- Method: `{about.method}`: {_METHODS.get(about.method, about.method)}",
        f"- Rank: {rank}",
        "- The weights and every adapter's own scaling are inside: the scaling to load with is 1.",
        "",
        "| adapter | weight | sha256 of its weights |\n|---|---:|---|",
        rows,
    ]
    return "\n".join(lines)
