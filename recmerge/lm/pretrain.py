"""A small causal language model from catalogue text alone: titles on shelves, laid out as `open` prompts are."""

import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from recmerge.lm.base import hush
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.runs.reporter import Reporter

_TEXT, _TURN, _END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # Qwen2's own special tokens
_MIN_SHELF = 4  # items of a category or brand that make a shelf


@dataclass(frozen=True)
class CatalogueItem:
    """One item's text; nothing of anybody's behaviour.

    Args:
        domain: Its catalogue.
        title: Cleaned title.
        brand: Empty where unknown.
        category: Empty where unknown.
    """

    domain: str
    title: str
    brand: str
    category: str


@dataclass(frozen=True)
class PretrainResult:
    """What pretraining reached.

    Args:
        loss: Validation loss in nats per token of unseen titles (end tokens included).
        tokens_seen: Tokens trained on.
        parameters: Of the model.
        curve: (step, training loss) of every step.
    """

    loss: float
    tokens_seen: int
    parameters: int
    curve: list[tuple[int, float]]


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


class Shelves:
    """Draws titles that stand side by side: of one category, one brand, or one whole catalogue.

    Args:
        items: The catalogue.
        shelf_share: Share of the draws from a category or brand, in [0, 1].
        seed: Of the draws.
    """

    def __init__(self, items: Sequence[CatalogueItem], shelf_share: float, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311  (no secret)
        self.shelf_share = shelf_share
        groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        self.domains: dict[str, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            self.domains[item.domain].append(index)
            for kind, value in (("category", item.category), ("brand", item.brand)):
                if value and value.casefold() != "unknown":
                    groups[item.domain, kind, value].append(index)
        self.groups = [g for _, g in sorted(groups.items()) if len(g) >= _MIN_SHELF]
        self.weights = [math.sqrt(len(g)) for g in self.groups]

    def draw(self) -> Iterator[int]:
        """Yield the item indices of one shelf, in random order, none twice."""
        if self.groups and self.rng.random() < self.shelf_share:
            group = self.rng.choices(self.groups, self.weights)[0]
        else:
            names = sorted(self.domains)
            group = self.domains[self.rng.choices(names, [len(self.domains[n]) for n in names])[0]]
        order = group if len(group) > 256 else list(group)
        if len(group) > 256:
            yield from self.rng.sample(order, 256)
        else:
            self.rng.shuffle(order)
            yield from order


def pack_shelf(shelf: Iterator[int], titles: Sequence[tuple[int, ...]], start: Sequence[int], end: int, max_length: int) -> list[int]:
    """Lay a shelf's titles out as an `open` prompt: start, title, end, title, end ... up to max_length tokens."""
    ids = list(start)
    for index in shelf:
        piece = titles[index]
        if len(ids) + len(piece) + 1 > max_length:
            if len(ids) > max_length // 2:
                break
            continue
        ids += [*piece, end]
    return ids


def pretrain(
    model: Any,
    tokenizer: Any,
    items: Sequence[CatalogueItem],
    held_out: Sequence[CatalogueItem],
    settings: Mapping[str, Any],
    reporter: Reporter,
) -> PretrainResult:
    """Train a model on shelves of titles.

    Args:
        model: Random weights, trained in place.
        tokenizer: Its tokenizer.
        items: Catalogue to learn.
        held_out: Items for the validation loss.
        settings: max_length, shelf_share, steps, batch_size, learning_rate, warmup_ratio, weight_decay, seed.
        reporter: Where progress goes.

    Returns:
        The loss reached and what it took.
    """
    encoder = Encoder(tokenizer, PromptSettings(style="open", max_length=settings["max_length"]))
    titles = encoder.plain([item.title for item in items])
    shelves = Shelves(items, settings["shelf_share"], settings["seed"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.95), weight_decay=settings["weight_decay"])
    curve, seen = [], 0
    model.train()
    with reporter.bar("pretraining", settings["steps"]) as bar:
        for step in range(settings["steps"]):
            for group in optimizer.param_groups:
                group["lr"] = settings["learning_rate"] * _schedule(step, settings["steps"], settings["warmup_ratio"])
            rows = [pack_shelf(shelves.draw(), titles, encoder.start_ids, encoder.end_id, settings["max_length"]) for _ in range(settings["batch_size"])]
            loss = _loss(model, rows, tokenizer.pad_token_id)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            seen += sum(map(len, rows))
            curve.append((step + 1, float(loss.detach())))
            bar.advance(1, f"loss {curve[-1][1]:.3f}")
    model.eval()
    return PretrainResult(_held_out_loss(model, encoder, held_out), seen, sum(p.numel() for p in model.parameters()), curve)


def _schedule(step: int, steps: int, warmup_ratio: float) -> float:
    warmup = max(1, math.ceil(steps * warmup_ratio))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _loss(model: Any, rows: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    longest = max(map(len, rows))
    ids = torch.tensor([list(r) + [pad] * (longest - len(r)) for r in rows])
    labels = torch.tensor([list(r) + [-100] * (longest - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    result: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
    return result


@torch.inference_mode()
def _held_out_loss(model: Any, encoder: Encoder, items: Sequence[CatalogueItem]) -> float:
    """Nats per token of unseen titles, each alone behind the start token."""
    total, count = 0.0, 0
    rows = [[*encoder.start_ids, *ids, encoder.end_id] for ids in encoder.plain([i.title for i in items])]
    rows = [r for r in rows if len(r) > 2]
    for begin in range(0, len(rows), 64):
        batch = rows[begin : begin + 64]
        n = sum(len(r) - 1 for r in batch)
        total += float(_loss(model, batch, encoder.tokenizer.pad_token_id)) * n
        count += n
    return total / max(count, 1)


def save_base(model: Any, tokenizer: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write weights (safetensors), config and tokenizer as transformers reads them."""
    hush()
    model.to(dtype).save_pretrained(str(folder), safe_serialization=True)
    tokenizer.save_pretrained(str(folder))
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors leaves its files readable by their owner alone
