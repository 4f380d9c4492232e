"""A new small base model: byte-level BPE tokenizer, Qwen2-architecture weights, files as transformers reads them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from recmerge.lm.base import hush

_TEXT, _TURN, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # Qwen2's own special tokens


def train_tokenizer(texts: Sequence[str], vocab_size: int, max_length: int) -> Any:
    """Learn a byte-level BPE tokenizer.

    Args:
        texts: Titles, brands and categories.
        vocab_size: Ids in all, special tokens and the 256 bytes included.
        max_length: Noted as the longest sequence.

    Returns:
        A Qwen2 tokenizer with an end and a padding token, as Qwen2 has them.
    """
    # Qwen2's own tokenizer class, with its normaliser and splits: AutoTokenizer picks it by the model's type, and
    # would silently put those in the place of any others.
    tokenizer = Qwen2Tokenizer(eos_token=_END, pad_token=_TEXT, unk_token=_TEXT, additional_special_tokens=[_TURN], model_max_length=max_length)
    special = [_TEXT, _TURN, _END]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    backend = tokenizer.backend_tokenizer
    backend.train_from_iterator(texts, trainer)
    learned = json.loads(backend.to_str())["model"]
    merges = [tuple(m) for m in learned["merges"]]
    return Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=merges,
        eos_token=_END,
        pad_token=_TEXT,
        unk_token=_TEXT,
        additional_special_tokens=[_TURN],
        model_max_length=max_length,
    )


def new_model(tokenizer: Any, *, hidden_size: int, layers: int, heads: int, kv_heads: int, intermediate_size: int, max_length: int, seed: int) -> Any:
    """Make a Qwen2-architecture model with random weights and tied embeddings.

    Args:
        tokenizer: Gives the vocabulary and special ids.
        hidden_size: D.
        layers: Transformer blocks.
        heads: Query heads; must divide D.
        kv_heads: Key and value heads; must divide heads.
        intermediate_size: Width of the gated MLP.
        max_length: Longest sequence.
        seed: Of the weights.

    Returns:
        The model in float32.
    """
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max(max_length, 2048),
        tie_word_embeddings=True,
        use_sliding_window=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def save_base(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write weights (safetensors), config and tokenizer as transformers reads them."""
    hush()
    model.to(dtype).save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors leaves its files readable by their owner alone
