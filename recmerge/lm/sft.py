"""Supervised fine-tuning of a LoRA with TRL's SFTTrainer: progress, a loss curve, and resumption."""

import json
import math
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from recmerge.errors import ConfigError, GateError, Interrupted
from recmerge.lm.checkpoints import mark_complete, newest_whole, step_of
from recmerge.lm.sequences import Sequences
from recmerge.names import LOSS_FILE
from recmerge.runs.reporter import Bar, Reporter

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class SftSettings:
    """How to train; the names are those of `configs/train/*.yaml`.

    Args:
        epochs: Passes over the sequences; None where steps is given.
        steps: Optimiser steps; None where epochs is given.
        batch_size: Sequences per step over all processes.
        micro_batch_size: Sequences per forward pass and process.
        learning_rate: Peak rate.
        scheduler: A transformers scheduler name.
        warmup_ratio: Share of the steps with a rising rate, in [0, 1).
        weight_decay: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        bf16: Mixed precision in bfloat16.
        gradient_checkpointing: Trade time for memory.
        save_every: Steps between checkpoints.
        zero_loss_steps: Stop when the loss is exactly 0 this often in a row.
        seed: Of batch order and dropout.
        use_cpu: Stay on the CPU even where there is a GPU.
        extra: More keyword arguments for trl.SFTConfig.
    """

    epochs: float | None
    steps: int | None
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    scheduler: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    bf16: bool
    gradient_checkpointing: bool
    save_every: int
    zero_loss_steps: int
    seed: int
    use_cpu: bool
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SftOutcome:
    """What training did.

    Args:
        steps: Optimiser steps in all.
        resumed_from: The step it went on from; 0 for a straight run.
        final_loss: Mean loss of the last tenth of the steps.
        seconds: Spent in this process.
    """

    steps: int
    resumed_from: int
    final_loss: float
    seconds: float


def train_lora(
    model: Any, tokenizer: Any, sequences: Sequences, settings: SftSettings, folder: Path, reporter: Reporter, *, resume_command: str, world_size: int = 1
) -> SftOutcome:
    """Train the adapter that is on the model, going on from the newest whole checkpoint below `folder`.

    Args:
        model: A peft model.
        tokenizer: Its tokenizer.
        sequences: What to train on.
        settings: How.
        folder: The run's folder; gets `checkpoints/` and `loss.jsonl`.
        reporter: Where progress goes.
        resume_command: Shown when a signal stops training.
        world_size: Processes that train together.

    Returns:
        What was done; the model is trained in place.

    Raises:
        GateError: The loss became NaN, infinite, or stayed exactly 0.
        Interrupted: A signal came; a checkpoint was saved.
    """
    checkpoint = newest_whole(folder / CHECKPOINTS, reporter)
    start = step_of(checkpoint) if checkpoint else 0
    _forget_after(folder / LOSS_FILE, start)
    watcher = _Watcher(folder / LOSS_FILE, settings.zero_loss_steps, reporter, start)
    dataset = Dataset.from_dict({"input_ids": sequences.input_ids, "labels": sequences.labels})
    trainer = SFTTrainer(
        model=model,
        args=_sft_config(settings, folder, world_size),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[watcher],
    )
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    with watcher.stop_on_signal():
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watcher.signum:
        done, total = trainer.state.global_step, trainer.state.max_steps
        raise Interrupted(watcher.signum, f"training stopped at step {done} of {total}; a checkpoint is saved", fix=f"go on with: {resume_command}")
    losses = read_losses(folder / LOSS_FILE)
    tail = losses[-max(1, len(losses) // 10) :]
    return SftOutcome(trainer.state.global_step, start, sum(tail) / len(tail), float(result.metrics.get("train_runtime", 0.0)))


def _sft_config(s: SftSettings, folder: Path, world_size: int) -> SFTConfig:
    share = s.micro_batch_size * world_size
    if s.batch_size % share:
        raise ConfigError(
            f"batch_size {s.batch_size} is not a multiple of micro_batch_size {s.micro_batch_size} x {world_size} processes",
            fix="choose batch_size and micro_batch_size that divide",
        )
    ours: dict[str, Any] = {
        "output_dir": str(folder / CHECKPOINTS),
        "num_train_epochs": s.epochs or 1.0,
        "max_steps": s.steps or -1,
        "per_device_train_batch_size": s.micro_batch_size,
        "gradient_accumulation_steps": s.batch_size // share,
        "learning_rate": s.learning_rate,
        "lr_scheduler_type": s.scheduler,
        "warmup_steps": s.warmup_ratio,
        "weight_decay": s.weight_decay,
        "max_grad_norm": s.max_grad_norm,
        "bf16": s.bf16,
        "gradient_checkpointing": s.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": s.save_every,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the filter would hide a NaN from us
        "report_to": "none",
        "disable_tqdm": True,
        "seed": s.seed,
        "data_seed": s.seed,
        "use_cpu": s.use_cpu,
        "dataloader_pin_memory": not s.use_cpu,
        "ddp_find_unused_parameters": False,
        "max_length": None,  # sequences come whole: TRL must not cut an answer
        "packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "remove_unused_columns": False,
    }
    clash = sorted(ours.keys() & s.extra.keys())
    if clash:
        raise ConfigError(f"sft.{clash[0]} is set by recmerge itself", fix="use recmerge's own setting for it")
    try:
        return SFTConfig(**ours, **s.extra)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sft: {' '.join(str(error).split())[:200]}", fix="use keyword arguments of trl.SFTConfig") from error


class _Watcher(TrainerCallback):
    """Writes the loss curve, marks checkpoints whole, shows progress, and stops on signals or a sick loss."""

    def __init__(self, loss_path: Path, zero_limit: int, reporter: Reporter, start: int) -> None:
        self.loss_path, self.zero_limit, self.reporter, self.start = loss_path, zero_limit, reporter, start
        self.signum = 0
        self.zeros = 0
        self._bar: Any = None
        self._advance: Bar | None = None

    @contextmanager
    def stop_on_signal(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end training after the current step, with a checkpoint; a second one ends it at once."""

        def note(signum: int, frame: object) -> None:
            if self.signum:
                raise Interrupted(signum, "training stopped at once; the last checkpoint is kept")
            self.signum = signum
            self.reporter.say("stopping after this step; saving a checkpoint")

        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, note)
        except ValueError:  # not the main thread: no handlers
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._bar is not None:
                self._bar.__exit__(None, None, None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar."""
        if state.is_world_process_zero:
            self._bar = self.reporter.bar("training", state.max_steps, self.start)
            self._advance = self._bar.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask for a checkpoint and the end where a signal came."""
        if self.signum:
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Check and write one step's loss."""
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        self.zeros = self.zeros + 1 if loss == 0.0 else 0
        if not math.isfinite(loss) or self.zeros >= self.zero_limit:
            what = f"is {loss}" if not math.isfinite(loss) else f"was exactly 0 for {self.zeros} steps"
            raise GateError(
                f"the loss {what} at step {state.global_step}; training stopped", fix="lower learning_rate, or look at the data; earlier checkpoints are kept"
            )
        if state.is_world_process_zero:
            keys = ("loss", "learning_rate", "grad_norm", "epoch")
            line = {"step": state.global_step, **{k: float(logs[k]) for k in keys if k in logs}}
            with self.loss_path.open("a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")
            if self._advance is not None:
                self._advance.advance(1, f"loss {loss:.3f}")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the new checkpoint whole, once every process has written its part."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def read_losses(path: Path) -> list[float]:
    """Return the loss of every step of a loss curve."""
    if not path.is_file():
        return []
    return [json.loads(line)["loss"] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _forget_after(path: Path, step: int) -> None:
    """Drop the loss curve's lines after a step, and a torn last line: they will be written again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            break
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter in peft's format; peft keeps adapter weights in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder), safe_serialization=True)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors leaves its files readable by their owner alone


def drop_checkpoints(folder: Path) -> None:
    """Delete a complete run's checkpoints."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
