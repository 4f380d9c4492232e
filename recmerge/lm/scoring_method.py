"""What has to be known of a model before its answers can be scored in a quicker way than one by one."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

from recmerge.lm.title_tree import Question

Method = Literal["packed", "reused", "full"]
_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}  # nats per answer
_MOVING = frozenset({"longrope", "dynamic"})  # rotations that change with the longest position of a forward pass


def quick_methods(model: Any) -> tuple[Method, ...]:
    """Return what may be tried; a layer that sees less than the whole text before it might not show in a question that is tried.

    Args:
        model: A causal language model.

    Returns:
        The methods, the quickest first; none where what a token is depends on how long the others in its pass are.
    """
    if rotates_by_length(model):
        return ()
    config = text_config(model)
    kinds = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)  # GPT-Neo's: global and local
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    if any(kind not in ("full_attention", "global") for kind in kinds) if kinds else windowed:
        return ("reused",)
    return ("packed", "reused")


def rotates_by_length(model: Any) -> bool:
    """Whether positions turn by other angles where a pass is long: then passes are no longer independent of each other."""
    config = text_config(model)
    told = (getattr(config, name, None) for name in ("rope_parameters", "rope_scaling"))
    return any(kind in _MOVING for rope in told if isinstance(rope, Mapping) for kind in _rope_types(rope))


def _rope_types(rope: Mapping[str, Any]) -> Iterator[Any]:
    for key, value in rope.items():
        if isinstance(value, Mapping):  # by kind of layer
            yield from _rope_types(value)
        elif key in ("rope_type", "type"):
            yield value


def text_config(model: Any) -> Any:
    """Return the configuration of a model's text part; of most it is the only one."""
    find = getattr(model.config, "get_text_config", None)
    return find() if find is not None else model.config


def tolerance(dtype: torch.dtype) -> float:
    """Return by how many nats an answer may differ from the definition: as much as rounding explains."""
    return _TOLERANCE.get(dtype, 1e-3)


def tried_answers(question: Question) -> list[int]:
    """Return the places of a few answers to compare: the shortest and the longest, and the first and the last in order, between which a tree lies."""
    ordered = sorted(range(len(question.answers)), key=lambda i: question.answers[i])
    by_length = sorted(ordered, key=lambda i: len(question.answers[i]))
    return list(dict.fromkeys([ordered[0], ordered[-1], by_length[0], by_length[-1]]))
