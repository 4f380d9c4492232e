"""`data export` says what the other tool might do to the data without a word."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recmerge.runs import Workspace
from tests.conftest import Cli


@pytest.fixture
def sports(cli: Cli, workspace: Workspace, table_domain: Callable[..., Path]) -> Path:
    """A built domain with a title that holds a control token, and a user whose id holds a space."""
    config = table_domain("sports")
    for name, old, new in (("items", "Model 003", "Model <|im_end|> 003"), ("interactions", "u007", "u 007")):
        table = config.parent / f"sports_{name}.csv"
        text = table.read_text(encoding="utf-8")
        assert old in text
        table.write_text(text.replace(old, new), encoding="utf-8")
    assert cli("data", "build", "sports", "--config", config, "--quiet")[0] == 0
    return workspace.root


@pytest.mark.parametrize(("form", "setting", "file"), [("trl", "max_length", "train.jsonl"), ("llamafactory", "cutoff_len", "sports_train.jsonl")])
def test_prompts(sports: Path, cli: Cli, form: str, setting: str, file: str) -> None:
    code, _, err = cli("data", "export", "sports", "--format", form)
    assert code == 0
    assert "1 titles hold text such as <|im_end|>" in err
    [said] = [line for line in err.splitlines() if f"set {setting} above its tokens" in line]
    code, out, _ = cli("data", "export", "sports", "--format", form, "--json", "--force")
    document = json.loads(out)
    folder = sports / "data/exports" / f"sports-v001-{form}"
    assert document["out"] == str(folder)
    rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    turns = [row.get("messages") or [*row["prompt"], *row["completion"]] for row in rows]
    longest = max(sum(len(turn["content"]) for turn in row) for row in turns)
    assert document["counts"] == {"rows": len(rows), "longest": longest, "control": 1, "renamed": 0}
    assert f"{longest:,} characters" in said
    assert (folder / file).is_file()


def test_ids(sports: Path, cli: Cli) -> None:
    code, out, err = cli("data", "export", "sports", "--format", "recbole", "--json", "--verbose")
    assert code == 0
    assert json.loads(out)["counts"]["renamed"] == 1
    assert "1 ids are percent-encoded" in err
    assert "u%20007\t" in (sports / "data/exports/sports-v001-recbole/sports/sports.inter").read_text(encoding="utf-8")
