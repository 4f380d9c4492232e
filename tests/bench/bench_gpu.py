"""How well a GPU is used: candidates scored and LoRA trained with a random model of Qwen2-7B's shape in bf16, beside Hugging Face's `generate`.

usage: bench_gpu.py [--users N] [--batch B] [--layers N] [--skip-training]

Listwise prompts as in bench_scoring.py. Operations are counted from the shapes (two per weight and token, attention, output layer); the rate that they are set
against is that of the model's own matrix products, measured in the same run. Without a GPU it says so and ends.
"""

import argparse
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_scoring import BUNDLED, N_CANDIDATES, N_GENERATED, Work, alone, cached, examples
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.title_tree import TitleTree
from recmerge.rankers.llm import LlmRanker

SHAPE = {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}


def new_model(layers: int) -> Qwen2ForCausalLM:
    """Return a random model on the GPU, in bf16."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            return Qwen2ForCausalLM(Qwen2Config(num_hidden_layers=layers, tie_word_embeddings=False, rope_theta=1e6, **SHAPE)).eval()
    finally:
        torch.set_default_dtype(before)


@torch.inference_mode()
def matmul_rate(model: Qwen2ForCausalLM, n_tokens: int, seconds: float = 2.0) -> float:
    """Return operations per second of one layer's matrix products, on so many tokens."""
    weights = [p.detach() for name, p in model.named_parameters() if p.ndim == 2 and ".layers.0." in name]
    inputs = {w.shape[1]: torch.randn(n_tokens, w.shape[1], device="cuda", dtype=w.dtype) for w in weights}
    once = 2 * n_tokens * sum(w.numel() for w in weights)
    done, begin = 0, 0.0
    for turn in range(2):  # the first warms up
        torch.cuda.synchronize()
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds * turn + 0.3:
            for w in weights:
                torch.nn.functional.linear(inputs[w.shape[1]], w)
            torch.cuda.synchronize()
            done += once
    return done / (time.perf_counter() - begin)


def timed(what: str, n: int, work: Callable[[], object], operations: float | None, rate: float) -> float:
    """Print and return seconds per user, the better of two."""
    seconds = float("inf")
    for _ in range(2):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds = min(seconds, (time.perf_counter() - begin) / n)
    each = (operations or 0.0) / n / seconds
    share = "" if operations is None else f", {each / 1e12:6.1f} TFLOP/s, {each / rate:.0%} of the matrix products' rate"
    memory = torch.cuda.max_memory_allocated() / 2**30
    print(f"  {what:48} {seconds * 1e3:9.2f} ms a user ({n} users){share}; {memory:.1f} GiB", flush=True)
    return seconds


def train_step(model: Qwen2ForCausalLM, n_tokens: int, rows: int, rate: float) -> None:
    """Time steps of LoRA rank 16 on all linear layers; of the counted work, what the frozen weights need: forward and the gradient of inputs."""
    from recmerge.lm.lora import new_lora

    lora = new_lora(model, rank=16, alpha=32, dropout=0.0, target_modules="all-linear", use_rslora=False, init_seed=0).train()
    lora.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    lora.enable_input_require_grads()
    optimizer = torch.optim.AdamW([p for p in lora.parameters() if p.requires_grad], lr=1e-4, fused=True)
    ids = torch.randint(0, SHAPE["vocab_size"], (rows, n_tokens), device="cuda")

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        lora(input_ids=ids, labels=ids, logits_to_keep=None).loss.backward()
        optimizer.step()

    step()
    operations = 3 * rows * n_tokens * Work(model).per_token * 1.0  # forward twice with checkpoints, and once back
    timed(f"a step of LoRA on {rows} rows of {n_tokens} tokens", rows, step, operations, rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--skip-training", action="store_true")
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return
    shared = Path(os.environ["RECMERGE_SHARED"]) if os.environ.get("RECMERGE_SHARED") else None
    users, titles = examples(shared, asked.users, random.Random(0))
    tokenizer = AutoTokenizer.from_pretrained(shared / "models/qwen2-7b-instruct" if shared else BUNDLED)
    model = new_model(asked.layers)
    work = Work(model)
    ranker = LlmRanker(model, Encoder(tokenizer, PromptSettings("listwise", 1200)), titles, batch_size=asked.batch)
    questions = [ranker._question(u) for u in users]
    trees = [TitleTree(q) for q in questions]
    n_tokens = int(np.mean([t.length for t in trees]))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    print(f"  {work.per_token / 2e9:.2f} G weights in layers; {n_tokens} tokens a user with {N_CANDIDATES} titles")
    rate = matmul_rate(model, n_tokens * asked.batch)
    print(f"  matrix products of these shapes: {rate / 1e12:.0f} TFLOP/s")
    few = max(4, asked.users // 8)
    ranker.score(users[: asked.batch])
    ours = timed("recmerge", len(users), lambda: ranker.score(users), sum(map(work.tree, questions)), rate)
    print(f"  method {ranker.scorer.method}, {ranker.scorer.difference:.3f} nats from each sequence alone")
    naive = timed("each prompt with one candidate alone", few, lambda: [alone(model, q) for q in questions[:few]], sum(map(work.alone, questions[:few])), rate)
    reused = timed("prompt cached as transformers offers it", few, lambda: [cached(model, q) for q in questions[:few]], None, rate)
    decoded = timed(f"`generate`, greedy, {N_GENERATED} tokens", few, lambda: list(ranker.generate_batches(users[:few], N_GENERATED)), None, rate)
    print(f"  beside recmerge: each alone {naive / ours:.1f} times, cached prompt {reused / ours:.1f} times, generate {decoded / ours:.1f} times as long")
    if not asked.skip_training:
        train_step(model, n_tokens, 8, rate)


if __name__ == "__main__":
    main()
