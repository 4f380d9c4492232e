"""How fast an adapter is trained, and in how much memory, beside plain TRL on the same rows.

usage: bench_training.py [--users N]

Histories of real Sports where RECMERGE_SHARED names a folder of real data, of the bundled sample elsewhere; the bundled base model, float32, on this machine's
CPU. Every run is one pass over the same rows, in a process of its own. Plain TRL gets what its documentation asks for: a prompt and a completion a
row, one row for each title that is predicted. `published` is plain TRL with the published recipe's two rows a forward pass.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = ROOT / "recmerge/assets/base/nano"
STYLES = {"open": (160, 10, 12), "listwise": (900, 8, 10)}  # max_length, max_history, max_title_tokens
ROWS = {"open": 32, "listwise": 16}  # a step
MICRO = {"recmerge": 4, "trl": 8, "published": 2}  # rows a forward pass


def build(workspace: Path) -> Path:
    """Build Sports and return its folder."""
    shared = os.environ.get("RECMERGE_SHARED")
    tables = Path(shared) / "data/amazon2014/sports" if shared else ROOT / "recmerge/assets/sample/sports"
    words = ["--set", f"interactions={tables}/interactions.csv.gz", "--set", f"items={tables}/items.csv.gz", "--workspace", str(workspace), "--json"]
    command = [str(Path(sys.executable).with_name("recmerge")), "data", "build", "sports", "--config", "table", *words]
    subprocess.run(command, check=True, capture_output=True)
    return next((workspace / "data/processed/sports").glob("v*"))


def made(folder: Path, style: str, n_users: int) -> tuple[Any, Any, Any]:
    """Return (the training set of some users, the encoder, the model with a new adapter)."""
    import polars as pl
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from recmerge.data.dataset import read_domain, user_order
    from recmerge.data.training_set import TrainingSet
    from recmerge.lm.encoding import Encoder, PromptSettings
    from recmerge.lm.lora import new_lora

    domain = read_domain(folder, "sports")
    users = user_order(domain.rows["user_id"].unique().to_list(), 0)[:n_users]
    rows = domain.rows.filter(pl.col("user_id").is_in(users)).select(pl.lit("sports").alias("domain"), pl.all())
    encoder = Encoder(AutoTokenizer.from_pretrained(BASE), PromptSettings(style, *STYLES[style]))
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    return (
        TrainingSet("sports", {"sports": domain}, rows),
        encoder,
        new_lora(model, rank=16, alpha=32, dropout=0.0, target_modules="all-linear", use_rslora=False, init_seed=0),
    )


def plain_rows(data: Any, encoder: Any) -> dict[str, list[list[int]]]:
    """Return a prompt and a completion for each title that is predicted, as TRL takes them."""
    rows: dict[str, list[list[int]]] = {"input_ids": [], "completion_mask": []}
    for row in data.rows.iter_rows(named=True):
        domain = data.domains[row["domain"]]
        titles, sequence = domain.titles, domain.sequences[row["user_id"]]
        answer = encoder.answer(titles[row["target"]])
        prompt = encoder.prompt([titles[i] for i in sequence[: row["position"]]], [titles[c] for c in row["candidates"]], len(answer))
        if prompt is not None and prompt.ids:
            rows["input_ids"].append([*prompt.ids, *answer])
            rows["completion_mask"].append([0] * len(prompt.ids) + [1] * len(answer))
    return rows


def train_ours(data: Any, encoder: Any, model: Any, style: str, folder: Path) -> tuple[float, int, list[float]]:
    """Return (seconds, titles predicted, losses of the steps)."""
    from recmerge.lm.sequences import build_sequences
    from recmerge.lm.sft import SftSettings, train_lora
    from recmerge.lm.watcher import read_losses
    from recmerge.names import LOSS_FILE
    from recmerge.runs.reporter import SilentReporter

    sequences = build_sequences(data, encoder)
    how = {
        "epochs": 1.0,
        "steps": None,
        "batch_size": ROWS[style],
        "micro_batch_size": MICRO["recmerge"],
        "learning_rate": 1e-3,
        "scheduler": "constant",
    }
    rest = {"warmup_ratio": 0.0, "weight_decay": 0.0, "max_grad_norm": 1.0, "bf16": False, "gradient_checkpointing": False, "save_every": 10**6}
    stop = {"patience": None, "eval_every": 1, "zero_loss_steps": 10, "seed": 0, "use_cpu": True}
    extra = {"train_sampling_strategy": "group_by_length"} if style == "open" else {}
    settings = SftSettings(**how, **rest, **stop, extra=extra)
    outcome = train_lora(model, encoder.tokenizer, sequences, None, settings, folder, SilentReporter(), resume_command="")
    return outcome.seconds, sequences.counts.rows_trained, read_losses(folder / LOSS_FILE)


def train_plainly(data: Any, encoder: Any, model: Any, style: str, folder: Path, micro: int) -> tuple[float, int, list[float]]:
    """Do the same with TRL alone."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = plain_rows(data, encoder)
    how = {"num_train_epochs": 1.0, "per_device_train_batch_size": micro, "gradient_accumulation_steps": ROWS[style] // micro, "learning_rate": 1e-3}
    rest = {"lr_scheduler_type": "constant", "max_grad_norm": 1.0, "bf16": False, "gradient_checkpointing": False, "save_strategy": "no", "seed": 0}
    quiet = {"logging_steps": 1, "report_to": "none", "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False}
    args = SFTConfig(output_dir=str(folder), **how, **rest, **quiet, data_seed=0, max_length=None, completion_only_loss=True, packing=False)
    trainer = SFTTrainer(model=model, args=args, train_dataset=Dataset.from_dict(rows), processing_class=encoder.tokenizer)
    result = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return float(result.metrics["train_runtime"]), len(rows["input_ids"]), losses


def one(system: str, style: str, folder: Path, n_users: int) -> None:
    """Train once in this process and print what it took."""
    data, encoder, model = made(folder, style, n_users)
    with tempfile.TemporaryDirectory() as place:
        if system == "recmerge":
            seconds, titles, losses = train_ours(data, encoder, model, style, Path(place))
        else:
            seconds, titles, losses = train_plainly(data, encoder, model, style, Path(place), MICRO[system])
    unit = 1 if sys.platform == "darwin" else 1024
    print(json.dumps({"seconds": seconds, "titles": titles, "losses": losses, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}))


def compare(style: str, folder: Path, n_users: int, systems: Iterable[str] = MICRO) -> None:
    """Print the runs of one prompt style."""
    found = {}
    for system in systems:
        command = [sys.executable, __file__, "--one", system, style, str(folder), str(n_users)]
        found[system] = run = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        speed = run["titles"] / run["seconds"]
        print(f"  {style:9} {system:10} {run['titles']:,} titles {run['seconds']:7.1f} s {speed:8.1f} titles/s, peak {run['peak'] / 1e6:,.0f} MB", flush=True)
    ours = found["recmerge"]
    for system, run in found.items():
        if run is not ours:
            ratio = ours["titles"] / ours["seconds"] / (run["titles"] / run["seconds"])
            print(f"    {ratio:.1f} times as fast as {system}, {ours['peak'] / run['peak']:.2f} of its peak memory", end="")
            same = len(run["losses"]) == len(ours["losses"])
            gap = max((abs(a - b) for a, b in zip(ours["losses"], run["losses"], strict=False)), default=math.nan)
            print(f"; losses of the steps differ by {gap:.1e} at most" if same else f"; first loss {ours['losses'][0]:.3f}, {run['losses'][0]:.3f}")


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=400)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace:
        folder = build(Path(workspace))
        print(f"training: one pass over the rows of {asked.users} users of Sports (listwise: {asked.users // 8})")
        compare("open", folder, asked.users)
        compare("listwise", folder, asked.users // 8)


if __name__ == "__main__":
    main()
