import threading
import time
from typing import Any

import pytest

from recmerge.ablation.engines.local import count_done, run_local
from recmerge.ablation.graph import Cell, Graph, Use
from recmerge.ablation.refs import reference
from recmerge.errors import ArtifactError, ConflictError, Interrupted, RecmergeError
from recmerge.runs import RunSpec, SilentReporter, Workspace, open_run


class FakeCommands:
    """Stands for the commands: notes what it was asked, fails what it is told to."""

    def __init__(self, failing: dict[str, RecmergeError] | None = None, seconds: float = 0.0) -> None:
        self.failing = failing or {}
        self.seconds = seconds
        self.asked: list[str] = []
        self.stopped = False
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, words: list[str], label: str) -> dict[str, Any]:
        with self._lock:
            self.asked.append(" ".join(words))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.seconds)
        with self._lock:
            self.at_once -= 1
        if label in self.failing:
            raise self.failing[label]
        stage, name = label.split(" ")
        return {"stage": stage, "name": name, "version": "v001", "run_dir": f"/nowhere/{name}", "already_done": False}

    def stop(self) -> None:
        self.stopped = True


def diamond() -> Graph:
    """Two domains, an adapter on each, their merge; rankings of all three; one evaluation."""
    graph = Graph()
    for d in ("a", "b"):
        graph.add(Cell("build", d, ("data", "build", d)))
        graph.add(Cell("train", d, ("train", Use((f"build {d}",))), needs=(f"build {d}",)))
        graph.add(Cell("infer", d, ("infer", Use((f"train {d}",), flag="--adapter")), needs=(f"train {d}",)))
    both = ("train a", "train b")
    graph.add(Cell("merge", "m", ("merge", Use(both, flag="--adapters", joined=True)), needs=both))
    graph.add(Cell("infer", "m", ("infer", Use(("merge m",), flag="--adapter")), needs=("merge m",)))
    infers = ("infer a", "infer b", "infer m")
    graph.add(Cell("eval", "e", ("eval", Use(infers), Use(("infer b",), flag="--baseline")), wants=infers))
    graph.sort()
    return graph


# A bare name is used only for the newest complete version; nothing lies in this workspace, so versions are named.
def test_results_are_passed_on_by_name_and_version(workspace: Workspace):
    run = FakeCommands()
    outcomes = run_local(diamond(), run, workspace, SilentReporter())
    assert [o.state for o in outcomes.values()] == ["done"] * 9
    assert "merge --adapters a@v001,b@v001" in run.asked
    assert run.asked[-1] == "eval a@v001 b@v001 m@v001 --baseline b@v001"


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_failed_cell_stops_only_what_depends_on_it(workspace: Workspace, jobs: int):
    reporter = SilentReporter()
    outcomes = run_local(diamond(), run := FakeCommands({"train b": ArtifactError("torn", fix="mend")}), workspace, reporter, jobs)
    states = {key: o.state for key, o in outcomes.items()}
    assert states == {
        "build a": "done",
        "build b": "done",
        "train a": "done",
        "train b": "failed",
        "merge m": "skipped",
        "infer a": "done",
        "infer b": "skipped",
        "infer m": "skipped",
        "eval e": "done",
    }
    assert outcomes["train b"].error == "error[ARTIFACT]: torn; fix: mend"
    assert outcomes["infer m"].error == "'merge m' skipped"
    assert run.asked[-1] == "eval a@v001"  # what is left is still compared, the baseline is gone
    assert any("train b failed, the others go on" in w for w in reporter.warnings)


def test_an_evaluation_of_nothing_is_skipped(workspace: Workspace):
    failing = {"train a": ArtifactError("x"), "train b": ArtifactError("y")}
    outcomes = run_local(diamond(), FakeCommands(failing), workspace, SilentReporter())
    assert outcomes["eval e"].state == "skipped"


def test_jobs_run_side_by_side_but_never_before_their_inputs(workspace: Workspace):
    run = FakeCommands(seconds=0.05)
    outcomes = run_local(diamond(), run, workspace, SilentReporter(), jobs=2)
    assert run.most_at_once == 2
    assert all(o.complete for o in outcomes.values())
    place = {words: i for i, words in enumerate(run.asked)}
    assert place["data build a"] < place["train a@v001"] < place["merge --adapters a@v001,b@v001"] < place["infer --adapter m@v001"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_is_no_failure_of_a_cell(workspace: Workspace, jobs: int):
    run = FakeCommands({"train a": Interrupted(2, "stopped")})
    with pytest.raises(Interrupted):
        run_local(diamond(), run, workspace, SilentReporter(), jobs)
    assert run.stopped == (jobs > 1)
    assert not any(words.startswith("eval") for words in run.asked)


def spec(name: str, stage: str = "train") -> RunSpec:
    return RunSpec(stage=stage, name=name, config={}, inputs=(), code="1")


def begin_training(workspace: Workspace, name: str) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(workspace, spec(name)):
        raise KeyboardInterrupt


def test_a_training_cut_short_is_resumed(workspace: Workspace):
    begin_training(workspace, "a")
    run = FakeCommands()
    run_local(diamond(), run, workspace, SilentReporter())
    assert "train a@v001 --resume" in run.asked
    assert "train b@v001" in run.asked


def test_a_training_begun_with_other_settings_starts_afresh(workspace: Workspace):
    begin_training(workspace, "a")

    class Refusing(FakeCommands):
        def __call__(self, words: list[str], label: str) -> dict[str, Any]:
            if "--resume" in words:
                raise ConflictError("was begun with other settings")
            return super().__call__(words, label)

    outcomes = run_local(diamond(), run := Refusing(), workspace, SilentReporter())
    assert outcomes["train a"].state == "done"
    assert "train a@v001" in run.asked


def complete(workspace: Workspace, name: str, stage: str = "train") -> None:
    with open_run(workspace, spec(name, stage)):
        pass


def test_a_reference_names_a_version_only_where_it_must(workspace: Workspace):
    complete(workspace, "a")
    result = {"stage": "train", "name": "a", "version": "v001"}
    assert reference(workspace, result) == "a"
    begin_training(workspace, "a")  # v002 is not complete: the name still stands for v001
    assert reference(workspace, result) == "a"
    complete(workspace, "a")
    assert reference(workspace, result) == "a@v001"
    complete(workspace, "a", "merge")
    assert reference(workspace, result) == "train/a@v001"
    assert reference(workspace, {**result, "version": "v003"}) == "train/a"


def test_done_cells_are_counted_from_the_inputs_on(workspace: Workspace):
    class Previews(FakeCommands):
        def __call__(self, words: list[str], label: str) -> dict[str, Any]:
            assert words[-1] == "--dry-run"
            self.asked.append(label)
            if label == "infer a":
                raise ArtifactError("cannot tell")
            stage, name = label.split(" ")
            return {"stage": stage, "name": name, "already_done": None if label == "train b" else "v001"}

    # done: build a, build b, train a. Not asked, as an input is missing: merge m, infer b, infer m, eval e.
    previews = Previews()
    assert count_done(diamond(), previews, workspace) == 3
    assert previews.asked == ["build a", "build b", "train a", "train b", "infer a"]


def test_what_another_ablation_makes_meanwhile_is_not_taken_for_ours(workspace: Workspace):
    """The name stood for our version when it was made, and stands for another's when it is used."""

    class Beside(FakeCommands):
        def __call__(self, words: list[str], label: str) -> dict[str, Any]:
            stage, name = label.split(" ")
            if stage == "infer":
                complete(workspace, name, "infer")
            if label == "infer m":
                complete(workspace, "a", "infer")
            return super().__call__(words, label)

    run = Beside()
    run_local(diamond(), run, workspace, SilentReporter())
    assert run.asked[-1] == "eval a@v001 b m --baseline b"
