"""What watches over a training: the loss curve, progress, signals, and a loss that is sick."""

import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from recmerge.errors import GateError, Interrupted
from recmerge.lm.checkpoints import mark_complete
from recmerge.runs.reporter import Bar, Reporter


class Watcher(TrainerCallback):
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


def forget_after(path: Path, step: int) -> None:
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
