"""Faults that any command can meet: one line on stderr, the right exit code, nothing lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recmerge.runs import RunSpec, Workspace, open_run


def only_error(err: str) -> str:
    """Return the one error line of a command that printed nothing else."""
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error[")
    return lines[0]


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "No such command 'trian'"),
        (["data", "biuld"], "No such command 'biuld'"),
        (["doctor", "--nope"], "No such option"),
        (["runs", "show"], "Missing argument"),
        (["ablate", "demo", "--jobs", "many"], "Invalid value for '--jobs'"),
        (["ablate"], "give the ablation's FILE"),
        (["ablate", "demmo"], "did you mean 'demo'?"),
        (["ablate", "nowhere.yaml"], "config nowhere.yaml does not exist"),
        (["ablate", "demo", "--engine", "loacl"], "did you mean 'local'?"),
        (["ablate", "demo", "--set", "name"], "not of the form key=value"),
    ],
)
def test_wrong_words(workspace: Workspace, cli: Any, words: list[str], said: str):
    code, out, err = cli(*words)
    assert (code, out) == (2, "")
    assert said in only_error(err)


def test_f1_an_unknown_key_is_named_with_the_nearest_and_its_line(workspace: Workspace, cli: Any, tmp_path: Path):
    path = write(tmp_path, "base: nano\nsteps: 3\nlora:\n  rnak: 8\n")
    code, _, err = cli("train", "sports", "--config", path)
    line = only_error(err)
    assert code == 2
    assert f"{path}:4: unknown key in 'lora' 'rnak', did you mean 'rank'?" in line


def test_f2_a_number_written_as_a_word_is_read_as_the_number(workspace: Workspace, cli: Any, table_domain: Any, tiny_base: Path):
    assert cli("data", "build", "toys", "--config", table_domain("toys"))[0] == 0
    path = write(tiny_base.parent, f"base: '{tiny_base}'\nsteps: 3\nlearning_rate: '1e-4'\n")
    code, out, _ = cli("train", "toys", "--config", path, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["config"]["learning_rate"] == 0.0001


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 3\nlearning_rate: fast\n", "learning_rate = 'fast'"),
        ("steps: 3\nlora:\n  rank: -1\n", "config.yaml:3: lora.rank = -1"),
        ("steps: 3\nlearning_rate: .nan\n", "learning_rate"),
    ],
)
def test_f2_what_is_no_number_is_named_by_its_path(workspace: Workspace, cli: Any, tmp_path: Path, text: str, said: str):
    code, _, err = cli("train", "sports", "--config", write(tmp_path, text))
    assert code == 2
    assert said in only_error(err)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: 3\nsteps: 4\n", "config.yaml:2: key 'steps' stands twice"),
        ("base: !!python/object/apply:os.system ['touch hacked']\n", "config.yaml:1: "),
        ("base: !anything x\n", "config.yaml:1: "),
        (BOMB, "config.yaml:2: aliases (*name) are not allowed"),
        ("[" * 5000, "config.yaml"),
        ("- a list\n", "holds a list"),
        ("\x00", "config.yaml"),
    ],
)
def test_f3_yaml_that_could_be_silently_wrong_is_refused(workspace: Workspace, cli: Any, tmp_path: Path, text: str, said: str):
    code, _, err = cli("train", "sports", "--config", write(tmp_path, text))
    assert code == 2
    assert said in only_error(err)
    assert not list(workspace.root.iterdir())


def test_f46_a_model_that_wants_to_run_its_own_code_is_refused(workspace: Workspace, cli: Any, table_domain: Any, tiny_base: Path, tmp_path: Path):
    assert cli("data", "build", "toys", "--config", table_domain("toys"))[0] == 0
    hostile = tmp_path / "hostile"
    shutil.copytree(tiny_base, hostile)
    config = json.loads((hostile / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling.Model"}
    (hostile / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (hostile / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    code, _, err = cli("train", "toys", "--base", hostile, "--set", "steps=1", "--quiet")
    assert code == 4
    assert "wants to run code of its own" in only_error(err)
    code, _, err = cli("train", "toys", "--base", "some/model", "--trust-remote-code", "--quiet")
    assert code == 4
    assert "pinned revision" in only_error(err)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/b", "a\x00b", "x" * 300, "", ".hidden", "-x", "v001", "a..b"])
def test_f47_names_that_could_leave_their_folder(workspace: Workspace, cli: Any, table_domain: Any, name: str):
    config = table_domain("toys")
    code, _, err = cli("data", "build", "toys", "--config", config, f"--name={name}")
    assert code == 2 or name == ""  # an empty name is no name: the default stands
    if name:
        only_error(err)
        assert not (workspace.root / "data").exists()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "x" * 300, "a\x00b"])
def test_f47_domains_and_run_references_too(workspace: Workspace, cli: Any, name: str):
    for words in (["data", "build", name, "--config", "sample"], ["runs", "show", name], ["infer", name, "--ranker", "random"]):
        code, _, err = cli(*words)
        assert code in {2, 4}
        only_error(err)
    assert not list(workspace.root.iterdir())


def test_f48_no_credential_reaches_a_file(workspace: Workspace, cli: Any, table_domain: Any, monkeypatch: pytest.MonkeyPatch):
    token = "hf_" + "aB3" * 12
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(sys, "argv", ["recmerge", "data", "build", "--mirror", f"https://user:{token}@example.org/x", f"--set=token={token}"])
    assert cli("data", "build", "toys", "--config", table_domain("toys"))[0] == 0
    files = [p for p in workspace.root.rglob("*") if p.is_file()]
    assert any(p.name == "manifest.json" for p in files)
    for path in files:
        assert token.encode() not in path.read_bytes(), path
        assert b"user:" not in path.read_bytes(), path


def test_f48_no_credential_reaches_a_failure(workspace: Workspace):
    token = "hf_" + "aB3" * 12
    spec = RunSpec("train", "x", {}, (), "1")
    with pytest.raises(OSError, match="refused"), open_run(workspace, spec) as run:
        raise OSError(f"https://user:{token}@example.org refused {token}")
    text = (run.path / "failure.json").read_text(encoding="utf-8")
    assert token not in text
    assert "user:" not in text
    assert "refused" in text


def test_f49_runs_of_the_same_instant_have_folders_of_their_own(workspace: Workspace):
    script = (
        "import sys; from pathlib import Path; from recmerge.runs import RunSpec, Workspace, open_run\n"
        "spec = RunSpec('train', 'x', {'n': sys.argv[2]}, (), '1')\n"
        "with open_run(Workspace(Path(sys.argv[1])), spec) as run:\n"
        "    (run.path / 'out.txt').write_text(sys.argv[2])\n"
        "print(run.path.name)\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(workspace.root), str(i)], stdout=subprocess.PIPE, text=True) for i in range(6)]
    versions = [p.communicate(timeout=60)[0].strip() for p in started]
    assert sorted(versions) == [f"v{i:03d}" for i in range(1, 7)]
    written = {(workspace.root / "runs/train/x" / v / "out.txt").read_text(encoding="utf-8") for v in versions}
    assert written == {str(i) for i in range(6)}


def test_f50_a_closed_pipe_is_a_quiet_end(workspace: Workspace):
    for i in range(300):  # more than a pipe's buffer would take in one piece
        with open_run(workspace, RunSpec("train", f"a-rather-long-name-of-a-run-so-that-the-list-is-long-{i:03d}", {}, (), "1")):
            pass
    command = f'"{sys.executable}" -m recmerge runs list --workspace "{workspace.root}" | head -c 0; echo "${{PIPESTATUS[0]}}"'
    for form in ("", " --json"):
        words = ["bash", "-c", command.replace("runs list", "runs list" + form)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        assert done.stdout.strip() == "0"


def test_an_unexpected_error_is_one_line_and_1_and_a_traceback_only_on_demand(workspace: Workspace, cli: Any, monkeypatch: pytest.MonkeyPatch):
    import recmerge.stages.doctor

    def broken(workspace: Workspace) -> None:
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(recmerge.stages.doctor, "examine", broken)
    code, _, err = cli("doctor")
    assert code == 1
    assert "ZeroDivisionError: by zero" in only_error(err)
    code, _, err = cli("doctor", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_a_workspace_that_is_a_file(tmp_path: Path, cli: Any):
    path = write(tmp_path, "x")
    code, _, err = cli("runs", "list", "--workspace", path)
    assert code == 2
    assert "is not a folder" in only_error(err)
    assert "is not a folder" in only_error(cli("demo", "--out", path)[2])
