"""Run cells on this machine: one after the other in this process, or several commands at a time."""

import shlex
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from recmerge.ablation.graph import Cell, Graph, Outcome
from recmerge.ablation.refs import reference
from recmerge.errors import ArtifactError, ConflictError, Interrupted, RecmergeError
from recmerge.runs.directory import find_unfinished
from recmerge.runs.reporter import Reporter
from recmerge.runs.workspace import Workspace


class RunCell(Protocol):
    """Runs one command line and returns its JSON document, or raises a RecmergeError."""

    def __call__(self, words: list[str], label: str) -> dict[str, Any]:
        """Run the words after `recmerge`; `label` names the cell in front of its progress."""

    def stop(self) -> None:
        """End what still runs."""


def run_local(graph: Graph, run_cell: RunCell, workspace: Workspace, reporter: Reporter, jobs: int = 1) -> dict[str, Outcome]:
    """Run every cell whose inputs exist; a failed one stops only what depends on it.

    Args:
        graph: The cells.
        run_cell: Runs one command; called from threads where `jobs` is more than one.
        workspace: Where the runs live.
        reporter: Is told every command as it starts, and every failure.
        jobs: Commands at a time.

    Returns:
        What became of every cell, by key.

    Raises:
        Interrupted: A signal came; cells that are complete stay so.
    """
    job = _Job(graph, run_cell, workspace, reporter)
    if jobs == 1:
        for cell in graph:
            if job.ready(cell):
                job.note(cell, _timed(job.work, cell))
        return job.outcomes
    try:
        _run_together(job, jobs)
    except BaseException:
        run_cell.stop()
        raise
    return job.outcomes


class _Job:
    """The state of one run of a graph; only the calling thread changes it."""

    def __init__(self, graph: Graph, run_cell: RunCell, workspace: Workspace, reporter: Reporter) -> None:
        self.graph, self.run_cell, self.workspace, self.reporter = graph, run_cell, workspace, reporter
        self.outcomes = {cell.key: Outcome() for cell in graph}
        self._seen = 0

    def settled(self, cell: Cell) -> bool:
        """Whether every input of a cell has come to an end."""
        return all(self.outcomes[key].state != "waiting" for key in cell.inputs)

    def ready(self, cell: Cell) -> bool:
        """Announce a cell whose inputs exist; mark one that lacks them as skipped."""
        outcome = self.outcomes[cell.key]
        lacking = [key for key in cell.needs if not self.outcomes[key].complete]
        if cell.wants and not any(self.outcomes[key].complete for key in cell.wants):
            lacking.append(cell.wants[0])
        complete = [key for key in cell.inputs if self.outcomes[key].complete]
        refs = {key: reference(self.workspace, self.outcomes[key].result) for key in complete}  # as of now: another ablation may have made newer ones
        outcome.words = cell.words(refs)
        self._seen += 1
        if lacking:
            outcome.state, outcome.error = "skipped", f"'{lacking[0]}' {self.outcomes[lacking[0]].state}"
            self.reporter.warn(f"{cell.key} skipped: {outcome.error}")
            return False
        self.reporter.say(f"[{self._seen}/{len(self.graph)}] {shlex.join(['recmerge', *outcome.words])}")
        return True

    def work(self, cell: Cell) -> dict[str, Any]:
        """Run a cell's command; a training that was cut short goes on where it stopped."""
        words = self.outcomes[cell.key].words
        if cell.kind == "train" and find_unfinished(self.workspace, "train", cell.name) is not None:
            try:
                return self.run_cell([*words, "--resume"], cell.key)
            except (ConflictError, ArtifactError):
                pass  # begun with other settings, or nothing valid was saved: start afresh
        return self.run_cell(words, cell.key)

    def note(self, cell: Cell, finished: "tuple[dict[str, Any] | RecmergeError, float]") -> None:
        """Keep what a cell gave."""
        result, seconds = finished
        outcome = self.outcomes[cell.key]
        outcome.seconds = seconds
        if isinstance(result, RecmergeError):
            outcome.state, outcome.error = "failed", result.line()
            self.reporter.warn(f"{cell.key} failed, the others go on: {result.line()}")
            return
        outcome.state = "already done" if result.get("already_done") else "done"
        outcome.result = result


def _timed(work: Callable[[Cell], dict[str, Any]], cell: Cell) -> "tuple[dict[str, Any] | RecmergeError, float]":
    start = time.monotonic()
    try:
        result: dict[str, Any] | RecmergeError = work(cell)
    except Interrupted:
        raise
    except RecmergeError as error:
        result = error
    return result, time.monotonic() - start


def _run_together(job: _Job, jobs: int) -> None:
    """Keep up to `jobs` commands running; a cell starts as soon as its inputs are there."""
    running: dict[Future[Any], Cell] = {}
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        waiting = list(job.graph)
        try:
            while waiting or running:
                for cell in [c for c in waiting if job.settled(c)]:
                    if len(running) == jobs:
                        break
                    waiting.remove(cell)
                    if job.ready(cell):
                        running[pool.submit(_timed, job.work, cell)] = cell
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    job.note(running.pop(future), future.result())
        except BaseException:
            job.run_cell.stop()  # else leaving the pool would wait for the commands
            raise


def count_done(graph: Graph, run_cell: RunCell, workspace: Workspace) -> int:
    """Count the cells whose command would answer "already done".

    Args:
        graph: The cells.
        run_cell: Runs one command; called with `--dry-run` only.
        workspace: Where the runs live.

    Returns:
        The count; a cell whose inputs are not all done is not done.
    """
    refs: dict[str, str] = {}
    for cell in graph:
        if any(key not in refs for key in cell.inputs):
            continue
        try:
            preview = run_cell([*cell.words(refs), "--dry-run"], cell.key)
        except Interrupted:
            raise
        except RecmergeError:
            continue
        version = preview.get("already_done")
        if version:
            refs[cell.key] = reference(workspace, {"stage": preview["stage"], "name": preview["name"], "version": version})
    return len(refs)
