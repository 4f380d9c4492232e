"""Greedy generation of answers, as the published code infers."""

from collections.abc import Sequence
from typing import Any

import torch


def plain_options() -> dict[str, Any]:
    """Return what keeps a model's own generation settings (Qwen2's penalise repetition) out of a search for the likeliest text."""
    return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}


@torch.inference_mode()
def generate_answers(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    """Let the model write an answer to each prompt, greedily.

    Args:
        model: A causal language model or a peft model on one.
        tokenizer: Its tokenizer.
        prompts: Token ids; padded on the left here.
        max_new_tokens: Tokens at most; an end token stops earlier.

    Returns:
        One text per prompt, without special tokens.
    """
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    written = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=tokenizer.eos_token_id,
        **plain_options(),
    )
    return [text.strip() for text in tokenizer.batch_decode(written[:, longest:], skip_special_tokens=True)]
