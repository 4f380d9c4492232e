"""Attention of one title tree: half the work of a full mask, for a prompt sees backward only and never sees the titles."""

from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from recmerge.lm.scoring_method import text_config

_NAME = "sdpa_tree"


def use_tree_attention(model: Any) -> bool:
    """Teach a model to take the mask of a tree's nodes only, (1, 1, M, P + width), the P tokens before them being causal.

    Nodes see only those of their own block of `width`. With a mask of all rows, or none, the model goes on as before.

    Args:
        model: A model of transformers.

    Returns:
        Whether it did: only models with transformers' `sdpa` attention can.
    """
    config = text_config(model)
    if getattr(config, "_attn_implementation", None) == "sdpa":
        AttentionInterface.register(_NAME, _attention)
        AttentionMaskInterface.register(_NAME, sdpa_mask)
        config._attn_implementation = _NAME
    return getattr(config, "_attn_implementation", None) == _NAME


def forget_tree_attention(model: Any) -> None:
    """Give a model its own attention back: some compare its name, and are another model under any other."""
    config = text_config(model)
    if getattr(config, "_attn_implementation", None) == _NAME:
        config._attn_implementation = "sdpa"


def _attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **options: Any
) -> tuple[torch.Tensor, None]:
    if attention_mask is None or attention_mask.shape[2] == query.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    n_prompt = query.shape[2] - attention_mask.shape[2]
    width = attention_mask.shape[3] - n_prompt
    keys, values = key[:, :, :n_prompt], value[:, :, :n_prompt]
    parts = [sdpa_attention_forward(module, query[:, :, :n_prompt], keys, values, None, **(options | {"is_causal": True}))[0]]
    for begin in range(0, attention_mask.shape[2], width):
        rows = slice(begin, begin + width)
        own = slice(n_prompt + begin, n_prompt + begin + width)
        seen_keys, seen_values = (torch.cat([before, all_[:, :, own]], 2) for before, all_ in ((keys, key), (values, value)))
        seen = attention_mask[:, :, rows, : seen_keys.shape[2]]
        parts.append(sdpa_attention_forward(module, query[:, :, own], seen_keys, seen_values, seen, **options)[0])
    return torch.cat(parts, 1), None
