"""The newest whole checkpoint is found, whatever happened to the others (fault F15)."""

from pathlib import Path

import pytest

from recmerge.errors import ArtifactError
from recmerge.lm.checkpoints import MARKER, is_whole, mark_complete, newest_whole
from recmerge.runs import SilentReporter

FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def checkpoint(parent: Path, step: int) -> Path:
    folder = parent / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(f"{name} {step}")
    mark_complete(folder)
    return folder


def truncate(folder: Path, name: str) -> None:
    (folder / name).write_text("x")


DAMAGE = {
    "adapter truncated": lambda f: truncate(f, FILES[0]),
    "optimizer truncated": lambda f: truncate(f, "optimizer.pt"),
    "no optimizer": lambda f: (f / "optimizer.pt").unlink(),
    "no rng state": lambda f: (f / "rng_state.pth").unlink(),
    "no trainer state": lambda f: (f / "trainer_state.json").unlink(),
    "no marker": lambda f: (f / MARKER).unlink(),
    "torn marker": lambda f: (f / MARKER).write_text('{"adapter'),
    "empty folder": lambda f: [p.unlink() for p in f.iterdir()],
}


@pytest.mark.parametrize("how", DAMAGE)
def test_falls_back_to_the_one_before_with_one_warning(tmp_path: Path, how: str) -> None:
    checkpoint(tmp_path, 10)
    DAMAGE[how](checkpoint(tmp_path, 20))
    reporter = SilentReporter()
    found = newest_whole(tmp_path, reporter)
    assert found == tmp_path / "checkpoint-10"
    assert len(reporter.warnings) == 1
    assert "checkpoint-20" in reporter.warnings[0]


def test_newest_by_step_not_by_name(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        assert is_whole(checkpoint(tmp_path, step))
    assert newest_whole(tmp_path, SilentReporter()) == tmp_path / "checkpoint-100"


def test_none_valid_is_an_error_that_names_them(tmp_path: Path) -> None:
    DAMAGE["adapter truncated"](checkpoint(tmp_path, 10))
    with pytest.raises(ArtifactError, match="checkpoint-10"):
        newest_whole(tmp_path, SilentReporter())


def test_killed_before_the_first_save_ended_begins_anew(tmp_path: Path) -> None:
    DAMAGE["no marker"](checkpoint(tmp_path, 10))
    assert newest_whole(tmp_path, SilentReporter()) is None
    assert newest_whole(tmp_path / "never", SilentReporter()) is None
