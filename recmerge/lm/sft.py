"""Supervised fine-tuning of a LoRA with TRL's SFTTrainer: progress, a loss curve, and resumption."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import EarlyStoppingCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig

from recmerge.errors import ConfigError, Interrupted
from recmerge.lm.checkpoints import newest_whole, step_of
from recmerge.lm.sequences import Sequences
from recmerge.lm.trainer import AdapterTrainer
from recmerge.lm.validation import Validation
from recmerge.lm.watcher import Watcher, forget_after, read_losses
from recmerge.names import LOSS_FILE, VALID_LOSS_FILE
from recmerge.runs.reporter import Reporter

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
        save_every: Steps between checkpoints; without effect where there is patience.
        patience: Evaluations in a row without a lower validation loss that end training; None: no evaluation.
        eval_every: Steps between evaluations.
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
    patience: int | None
    eval_every: int
    zero_loss_steps: int
    seed: int
    use_cpu: bool
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SftOutcome:
    """What training did.

    Args:
        steps: Optimiser steps in all.
        best_step: The step whose adapter is kept: that of the lowest validation loss, else the last.
        validation_loss: Of that step, nats per token; None without validation.
        resumed_from: The step it went on from; 0 for a straight run.
        final_loss: Mean loss of the last tenth of the steps.
        seconds: Spent in this process.
    """

    steps: int
    best_step: int
    validation_loss: float | None
    resumed_from: int
    final_loss: float
    seconds: float


def train_lora(
    model: Any,
    tokenizer: Any,
    sequences: Sequences,
    validation: Validation | None,
    settings: SftSettings,
    folder: Path,
    reporter: Reporter,
    *,
    resume_command: str,
    world_size: int = 1,
) -> SftOutcome:
    """Train the adapter that is on the model, going on from the newest whole checkpoint below `folder`.

    Args:
        model: A peft model.
        tokenizer: Its tokenizer.
        sequences: What to train on.
        validation: What tells when to stop; needed where settings have patience.
        settings: How.
        folder: The run's folder; gets `checkpoints/`, `loss.jsonl` and with validation `valid_loss.jsonl`.
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
    for name in (LOSS_FILE, VALID_LOSS_FILE):
        forget_after(folder / name, start)
    watcher = Watcher(folder / LOSS_FILE, settings.zero_loss_steps, reporter, start)
    dataset = Dataset.from_dict({"input_ids": sequences.input_ids, "labels": sequences.labels})
    trainer = AdapterTrainer(
        model=model,
        args=_sft_config(settings, folder, world_size),
        train_dataset=dataset,
        eval_dataset=dataset.select([0]) if validation else None,  # asked for by the base class, read by none: see `evaluate`
        processing_class=tokenizer,
        callbacks=[watcher, *([EarlyStoppingCallback(settings.patience)] if settings.patience else [])],
    )
    trainer.validation, trainer.valid_path = validation, folder / VALID_LOSS_FILE
    for noisy in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(noisy)
    with watcher.stop_on_signal():
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watcher.signum:
        done, total = trainer.state.global_step, trainer.state.max_steps
        raise Interrupted(watcher.signum, f"training stopped at step {done} of {total}; a checkpoint is saved", fix=f"go on with: {resume_command}")
    losses = read_losses(folder / LOSS_FILE)
    tail = losses[-max(1, len(losses) // 10) :]
    last, best = trainer.state.global_step, trainer.state.best_global_step or trainer.state.global_step
    seconds = float(result.metrics.get("train_runtime", 0.0))
    return SftOutcome(last, best, trainer.state.best_metric, start, sum(tail) / len(tail), seconds)


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
        "save_steps": s.eval_every if s.patience else s.save_every,
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
    if s.patience:
        best = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": False}
        ours |= {"eval_strategy": "steps", "eval_steps": s.eval_every, **best}
    clash = sorted(ours.keys() & s.extra.keys())
    if clash:
        raise ConfigError(f"sft.{clash[0]} is set by recmerge itself", fix="use recmerge's own setting for it")
    try:
        return SFTConfig(**ours, **s.extra)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sft: {' '.join(str(error).split())[:200]}", fix="use keyword arguments of trl.SFTConfig") from error


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter in peft's format; peft keeps adapter weights in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder), safe_serialization=True)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors leaves its files readable by their owner alone


def drop_checkpoints(folder: Path) -> None:
    """Delete a complete run's checkpoints."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
