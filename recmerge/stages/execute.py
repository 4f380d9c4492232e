"""Run a planned stage once: return the finished run where there is one already."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recmerge.runs.directory import Run, find_done, open_run
from recmerge.runs.manifest import Manifest, RunSpec
from recmerge.runs.reporter import Reporter
from recmerge.runs.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """What a command is about to do.

    Args:
        spec: The run's identity.
        outputs: Files it will write, relative to its version folder.
    """

    spec: RunSpec
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A complete run.

    Args:
        path: Its version folder, absolute.
        manifest: Its manifest.
        fresh: False where it was complete before and nothing was done.
    """

    path: Path
    manifest: Manifest
    fresh: bool


def execute(
    plan: Plan,
    work: Callable[[Run], None],
    workspace: Workspace,
    reporter: Reporter,
    *,
    again: bool = False,
    resume: Path | None = None,
) -> Done:
    """Do the work unless a complete run of the same identity exists.

    Args:
        plan: What to do.
        work: Writes the run's files into the run it is given.
        workspace: Where runs live.
        reporter: Where progress goes.
        again: Make a new version even so.
        resume: An unfinished version folder to go on with.

    Returns:
        The complete run.
    """
    spec = plan.spec
    done = None if again else find_done(workspace, spec)
    if done is not None:
        path = workspace.stage_dir(spec.stage) / done.name / done.version
        return Done(path.resolve(), done, fresh=False)
    run = open_run(workspace, spec, reporter=reporter, resume=resume)
    with run:
        work(run)
    assert run.manifest is not None  # published on leaving the block
    return Done(run.path.resolve(), run.manifest, fresh=True)
