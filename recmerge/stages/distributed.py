"""Training by several processes under torchrun: one writes the run, all compute."""

from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from accelerate import PartialState

from recmerge.lm.device import pick_device
from recmerge.runs.directory import Run
from recmerge.runs.workspace import Workspace
from recmerge.stages.execute import Done
from recmerge.stages.train import TrainJob, join_training, run_train


def run_together(job: TrainJob, run: Callable[[Callable[[Run], None]], Done], workspace: Workspace) -> Done | None:
    """Train as one of several processes.

    The first process opens the run and tells the others its folder; where there is nothing to do, or it fails
    before training begins, it tells them that. All leave the group before they end: torch aborts a process whose
    threads still serve it at exit.

    Args:
        job: What to train.
        run: Opens the run and does the work it is given, unless the run is complete.
        workspace: Where runs live.

    Returns:
        The finished run in the first process, None in the others.
    """
    state = PartialState(cpu=pick_device(job.config.device).type == "cpu")
    try:
        if state.is_main_process:
            return _lead(job, run)
        folder = _broadcast(None)
        if folder is not None:
            join_training(job, folder, workspace)
        return None
    finally:
        state.destroy_process_group()


def _lead(job: TrainJob, run: Callable[[Callable[[Run], None]], Done]) -> Done:
    """Do the first process's part."""
    told = False

    def work(opened: Run) -> None:
        nonlocal told
        told = True
        _broadcast(opened.path)
        run_train(job, opened)

    try:
        return run(work)
    finally:
        if not told:
            _broadcast(None)


def _broadcast(value: Any) -> Any:
    """Send the first process's value to all."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
