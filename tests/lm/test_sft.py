"""What watches over training: a sick loss, the loss curve."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from recmerge.errors import ConfigError, GateError
from recmerge.lm.sft import SftSettings, _sft_config
from recmerge.lm.watcher import Watcher, forget_after, read_losses
from recmerge.runs import SilentReporter


def watch(path: Path, losses: list[float], limit: int = 3) -> None:
    watcher = Watcher(path / "loss.jsonl", limit, SilentReporter(), 0)
    for step, loss in enumerate(losses, start=1):
        watcher.on_log(None, SimpleNamespace(global_step=step, is_world_process_zero=True), None, logs={"loss": loss})


@pytest.mark.parametrize("sick", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_at_its_step(tmp_path: Path, sick: float) -> None:
    with pytest.raises(GateError, match="at step 3"):
        watch(tmp_path, [2.0, 1.0, sick])
    assert read_losses(tmp_path / "loss.jsonl") == [2.0, 1.0]


def test_a_loss_of_exactly_zero_stops_after_some_steps(tmp_path: Path) -> None:
    watch(tmp_path, [0.0, 0.0, 1e-9, 0.0, 0.0])  # never three in a row
    with pytest.raises(GateError, match="exactly 0 for 3 steps at step 4"):
        watch(tmp_path, [1.0, 0.0, 0.0, 0.0])


def test_the_curve_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "loss.jsonl"
    path.write_text("".join(json.dumps({"step": s, "loss": float(s)}) + "\n" for s in range(1, 6)) + '{"step": 6, "lo')
    forget_after(path, 3)
    assert read_losses(path) == [1.0, 2.0, 3.0]


def settings(**changes: object) -> SftSettings:
    values = {
        "epochs": None,
        "steps": 3,
        "batch_size": 8,
        "micro_batch_size": 2,
        "learning_rate": 1e-3,
        "scheduler": "cosine",
        "warmup_ratio": 0.05,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_every": 2,
        "patience": None,
        "eval_every": 2,
        "zero_loss_steps": 5,
        "seed": 1,
        "use_cpu": True,
    }
    return SftSettings(**{**values, **changes})


@pytest.mark.parametrize(("world", "accumulated"), [(1, 4), (2, 2), (4, 1)])
def test_the_batch_is_that_of_all_processes(tmp_path: Path, world: int, accumulated: int) -> None:
    config = _sft_config(settings(), tmp_path, world)
    assert config.gradient_accumulation_steps == accumulated
    assert config.max_length is None  # TRL must not cut


def test_batches_that_do_not_divide_and_clashing_pass_through(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size 8 is not a multiple of micro_batch_size 3 x 1"):
        _sft_config(settings(micro_batch_size=3), tmp_path, 1)
    with pytest.raises(ConfigError, match=r"sft\.max_length is set by recmerge itself"):
        _sft_config(settings(extra={"max_length": 5}), tmp_path, 1)
    with pytest.raises(ConfigError, match="no_such_argument"):
        _sft_config(settings(extra={"no_such_argument": 5}), tmp_path, 1)
