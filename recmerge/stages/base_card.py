"""The model card of a base that `base pretrain` made."""

from typing import Any

from recmerge.config.base import BaseConfig

ASKED = 5000  # titles that knowledge is measured on, at most


def base_model_card(name: str, facts: dict[str, Any], config: BaseConfig) -> str:
    """Write a model card.

    Args:
        name: The base's name.
        facts: What the run noted: parameters, tokens_seen, histories, behaviour, learned, unseen.
        config: How it was made.

    Returns:
        Markdown with a YAML head.
    """
    learned, unseen = facts["learned"], facts["unseen"]
    behaviour = [b["domain"] for b in facts["behaviour"]]
    cut = f"the first {config.max_title_tokens} tokens of each" if config.max_title_tokens else "whole"
    lines = [
        "---",
        "library_name: transformers",
        "tags: [qwen2, recommendation, recmerge]",
        "license: apache-2.0",
        "---",
        f"# {name}",
        "",
        f"A causal language model of {facts['parameters']:,} parameters (Qwen2 architecture, {config.layers} layers, width {config.hidden_size}, tied",
        f"embeddings, {config.vocab_size:,} tokens), made from nothing by `recmerge base pretrain`.",
        "",
        "## What it has read",
        "",
        f"- Catalogues: titles ({cut}), brands and categories of {', '.join(sorted(config.catalogues)) or 'no domain'}; {config.shelf_share:.0%} of these",
        "  sequences are shelves (titles of one category or one brand side by side), the rest titles of one catalogue at random.",
    ]
    if behaviour:
        lines += [
            f"- Behaviour: {facts['histories']:,} buyers' training events of {', '.join(behaviour)}, {config.behaviour_share:.0%} of all sequences;",
            f"  no validation or test event. `train` and `infer` refuse {' and '.join(behaviour)} on this base: no table may ask it about buyers it has read.",
        ]
    else:
        lines += ["- Nothing of anybody's behaviour, so nothing of any test set."]
    lines += [
        f"- Training: {config.steps:,} steps of {config.batch_size} sequences of at most {config.max_length} tokens,",
        f"  {facts['tokens_seen']:,} tokens in all, seed {config.seed}.",
        "",
        "## What it knows",
        "",
        "| titles | how many | nats per token | second half completed from the first, word for word |",
        "|---|---|---|---|",
        f"| learned | {learned['titles']:,} | {learned['loss']:.3f} | {learned['completed']:.1%} |",
        f"| held out | {unseen['titles']:,} | {unseen['loss']:.3f} | {unseen['completed']:.1%} |",
        "",
        f"Each title alone behind the start token; at most {ASKED:,} titles, drawn by a seed. Layout: start, title, end, title, end ...: the",
        "`open` prompts of recmerge.",
        "",
        "## To make it again",
        "",
        f"`recmerge base pretrain --config {name}` on the same data: the same weights on the same kind of machine.",
        *(["", config.data_note] if config.data_note else []),
        "",
    ]
    return "\n".join(lines)
