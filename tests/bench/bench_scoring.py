"""How fast candidates are scored, beside each sequence alone, a cached prompt as transformers reuses it, and decoding as published.

usage: bench_scoring.py [--users N] [--width D] [--layers N]

Listwise prompts of real Sports histories and titles with the real Qwen2 tokenizer where RECMERGE_SHARED names a folder that holds both, invented ones with
the bundled tokenizer elsewhere; a random Qwen2 model. All on the same users, in one run; a part of them for what is slow, as printed.
"""

import argparse
import csv
import gzip
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from recmerge.data.dataset import Example
from recmerge.lm.cores import one_core_each
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.title_tree import Question, TitleTree
from recmerge.lm.token_logs import token_logs
from recmerge.rankers.llm import LlmRanker

BUNDLED = Path(__file__).parents[2] / "recmerge/assets/base/nano"
N_CANDIDATES, N_GENERATED = 30, 70
WORDS = [
    "Steel",
    "Outdoor",
    "Black",
    "Tactical",
    "Pro",
    "Water",
    "Bottle",
    "Running",
    "Yoga",
    "Mat",
    "Pack",
    "of",
    "Kit",
    "Light",
    "Knife",
    "Set",
    "with",
    "Case",
]


def examples(shared: Path | None, n: int, draw: random.Random) -> tuple[list[Example], dict[str, str]]:
    """Return users, their last purchase the target, and titles by item."""
    history: dict[str, list[str]] = defaultdict(list)
    if shared:
        folder = shared / "data/amazon2014/sports"
        with gzip.open(folder / "items.csv.gz", "rt", newline="", encoding="utf-8") as f:
            titles = {row["item_id"]: row["title"] for row in csv.DictReader(f) if row["title"]}
        with gzip.open(folder / "interactions.csv.gz", "rt", newline="", encoding="utf-8") as f:
            for row in csv.DictReader(f):
                if row["item_id"] in titles:
                    history[row["user_id"]].append(row["item_id"])
    else:
        titles = {f"I{i}": " ".join(draw.choices(WORDS, k=draw.randint(4, 14))) for i in range(2000)}
        history = {f"U{i}": draw.sample(sorted(titles), draw.randint(5, 12)) for i in range(4 * n)}
    items = sorted(titles)
    found = []
    for user in draw.sample(sorted(u for u, h in history.items() if len(h) > 2), n):
        *before, target = history[user]
        candidates = (*draw.sample(items, N_CANDIDATES - 1), target)
        found.append(Example("sports", user, tuple(before), target, candidates))
    return found, titles


class Work:
    """What a pass over users takes, counted in floating point operations: two per weight and token, attention and output layer apart."""

    def __init__(self, model: Qwen2ForCausalLM) -> None:
        c = model.config
        self.per_token = 2 * sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "lm_head" not in name)
        self.per_pair = 4 * c.num_hidden_layers * c.hidden_size
        self.per_row = 2 * c.vocab_size * c.hidden_size

    def of(self, tokens: int, pairs: int, rows: int) -> float:
        return float(tokens * self.per_token + pairs * self.per_pair + rows * self.per_row)

    def tree(self, question: Question) -> float:
        tree = TitleTree(question)
        return self.of(tree.length, int(tree.positions.sum()) + tree.length, len(tree.predicting))

    def alone(self, question: Question) -> float:
        lengths = [len(question.prompt) + len(a) - 1 for a in question.answers]
        return self.of(sum(lengths), sum(n * (n + 1) // 2 for n in lengths), sum(map(len, question.answers)))


@torch.inference_mode()
def alone(model: Qwen2ForCausalLM, question: Question) -> np.ndarray:
    """Score each prompt with one candidate as a sequence of its own: one user's sequences are a batch, for they are of nearly one length."""
    prompts = torch.tensor([question.prompt], device=model.device).expand(len(question.answers), -1)
    hidden = model.get_decoder()(input_ids=torch.cat([prompts, _padded(question, model)], 1), use_cache=False).last_hidden_state
    return _logs_of_answers(model, hidden[:, len(question.prompt) - 1 :], question)


@torch.inference_mode()
def cached(model: Qwen2ForCausalLM, question: Question) -> np.ndarray:
    """Read the prompt once, keep its keys and values, and read all candidates as a batch behind them, as transformers' documentation reuses a prompt."""
    first = model(input_ids=torch.tensor([question.prompt], device=model.device), use_cache=True, logits_to_keep=1)
    logits = model(input_ids=_padded(question, model), past_key_values=_repeated(first.past_key_values, question), use_cache=True).logits
    before = first.logits[:, -1:].expand(len(question.answers), -1, -1)
    logs = torch.log_softmax(torch.cat([before, logits], 1), -1)
    return np.array([float(logs[i, range(len(a)), list(a)].double().sum()) for i, a in enumerate(question.answers)])


@torch.inference_mode()
def cached_with_our_output_layer(model: Qwen2ForCausalLM, question: Question) -> np.ndarray:
    """Do the same, but compute logits of the titles' own tokens only, block by block."""
    decoder = model.get_decoder()
    first = decoder(input_ids=torch.tensor([question.prompt], device=model.device), use_cache=True)
    hidden = decoder(input_ids=_padded(question, model), past_key_values=_repeated(first.past_key_values, question), use_cache=True).last_hidden_state
    before = first.last_hidden_state[:, -1:].expand(len(question.answers), -1, -1)
    return _logs_of_answers(model, torch.cat([before, hidden], 1), question)


def _repeated(cache: Any, question: Question) -> Any:
    cache.batch_repeat_interleave(len(question.answers))
    return cache


def _padded(question: Question, model: Qwen2ForCausalLM) -> torch.Tensor:
    longest = max(map(len, question.answers)) - 1
    return torch.tensor([[*a[:-1], *[0] * (longest - len(a) + 1)] for a in question.answers], device=model.device)


def _logs_of_answers(model: Qwen2ForCausalLM, hidden: torch.Tensor, question: Question) -> np.ndarray:
    picked = torch.cat([hidden[i, : len(a)] for i, a in enumerate(question.answers)])
    targets = torch.tensor([token for a in question.answers for token in a], device=model.device)
    logs = token_logs(model, picked, torch.arange(len(picked), device=model.device), targets).cpu().numpy()
    return np.add.reduceat(logs, np.cumsum([0, *map(len, question.answers[:-1])]))


def matmul_rate(model: Qwen2ForCausalLM, n_tokens: int, n_rows: int, seconds: float) -> float:
    """Return how many operations per second the machine does in the model's own matrix products, each core at its own."""
    weights = [p.detach() for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    head = model.get_output_embeddings().weight.detach()
    inputs = {w.shape[1]: torch.randn(n_tokens, w.shape[1]) for w in weights}
    rows = torch.randn(n_rows, head.shape[1])
    once = 2 * (n_tokens * sum(w.numel() for w in weights) + n_rows * head.numel())

    def work(_: int) -> int:
        done, end = 0, time.perf_counter() + seconds
        with torch.inference_mode():
            while time.perf_counter() < end:
                for w in weights:
                    torch.nn.functional.linear(inputs[w.shape[1]], w)
                for part in head.split(4096):
                    torch.nn.functional.linear(rows, part)
                done += once
        return done

    begin = time.perf_counter()
    with one_core_each(torch.device("cpu")) as side_by_side:
        done = sum(side_by_side(work, range(torch.get_num_threads())))
    return done / (time.perf_counter() - begin)


def timed(what: str, n: int, work: Callable[[], object], operations: float | None, rate: float) -> float:
    """Print and return seconds per user."""
    begin = time.perf_counter()
    work()
    seconds = (time.perf_counter() - begin) / n
    share = "" if operations is None else f", {operations / n / seconds / 1e9:6.1f} GFLOP/s, {operations / n / seconds / rate:.0%} of the matrix products' rate"
    print(f"  {what:50} {seconds:8.3f} s per user ({n} users){share}", flush=True)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=7)
    asked = parser.parse_args()
    shared = Path(os.environ["RECMERGE_SHARED"]) if os.environ.get("RECMERGE_SHARED") else None
    draw = random.Random(0)
    users, titles = examples(shared, asked.users, draw)
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/qwen2-7b-instruct" if shared else BUNDLED)
    torch.manual_seed(0)
    shape = {"hidden_size": asked.width, "intermediate_size": 3 * asked.width, "num_hidden_layers": asked.layers}
    heads = {"num_attention_heads": asked.width // 64, "num_key_value_heads": max(1, asked.width // 256)}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=max(len(tokenizer), tokenizer.vocab_size), tie_word_embeddings=True, **shape, **heads)).eval()
    work = Work(model)
    ranker = LlmRanker(model, Encoder(tokenizer, PromptSettings("listwise", 1200)), titles)
    questions = [ranker._question(u) for u in users]
    trees = [TitleTree(q) for q in questions]
    n_tokens, n_rows = int(np.mean([t.length for t in trees])), int(np.mean([len(t.predicting) for t in trees]))
    n_prompt = int(np.mean([t.n_prompt for t in trees]))
    print(
        f"{work.per_token // 2 / 1e6:.1f} M weights in layers, {len(tokenizer):,} tokens; {n_prompt} tokens a prompt, {n_tokens} with its {N_CANDIDATES} titles"
    )
    rate = matmul_rate(model, n_tokens, n_rows, 3.0)
    print(f"  matrix products of these shapes: {rate / 1e9:.1f} GFLOP/s on {torch.get_num_threads()} cores")
    few = max(4, asked.users // 8)

    def side_by_side(one: Callable[[Qwen2ForCausalLM, Question], np.ndarray], n: int) -> Callable[[], list[np.ndarray]]:
        def run() -> list[np.ndarray]:
            with one_core_each(torch.device("cpu")) as each:
                return list(each(lambda q: one(model, q), questions[:n]))

        return run

    ranker.score(users[:2])
    ours = timed("recmerge", len(users), lambda: ranker.score(users), sum(map(work.tree, questions)), rate)
    naive = timed("each prompt with one candidate alone", few, side_by_side(alone, few), sum(map(work.alone, questions[:few])), rate)
    reused = timed("prompt cached as transformers offers it", few, side_by_side(cached, few), None, rate)
    lean = timed("the same with our output layer", few, side_by_side(cached_with_our_output_layer, few), None, rate)
    decoded = timed(f"greedy decoding of {N_GENERATED} tokens", few, lambda: list(ranker.generate_batches(users[:few], N_GENERATED)), None, rate)
    for other in (alone, cached, cached_with_our_output_layer):
        np.testing.assert_allclose(ranker.score(users[:1]), [other(model, questions[0])], atol=1e-2)  # of some 200 nats
    allowed = sum(map(work.alone, questions)) / sum(map(work.tree, questions))
    print(f"  each alone takes {naive / ours:.1f} times as long; counted operations allow {allowed:.1f}: {naive / ours / allowed:.0%} of it")
    print(f"  the cached prompt takes {reused / ours:.1f} times as long ({lean / ours:.1f} with our output layer), greedy decoding {decoded / ours:.1f} times")


if __name__ == "__main__":
    main()
