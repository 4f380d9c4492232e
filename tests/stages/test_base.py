"""`base pretrain`: a model that transformers loads, from catalogue text alone."""

import json
from pathlib import Path

import pytest
from conftest import write_domain_tables
from transformers import AutoModelForCausalLM, AutoTokenizer

from recmerge.errors import ArtifactError
from recmerge.lm.base import shipped_base
from recmerge.runs import Workspace
from recmerge.stages.lm_refs import base_label, find_base

TINY = {"vocab_size": 320, "hidden_size": 8, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate_size": 16, "max_length": 64, "steps": 3, "batch_size": 2}


@pytest.fixture
def config(workspace: Workspace) -> Path:
    write_domain_tables(workspace.root, "sports")
    (workspace.root / "sports_interactions.csv").unlink()  # it reads items alone
    path = workspace.root / "tiny.yaml"
    path.write_text("catalogues: {sports: sports_items.csv}\n" + "".join(f"{k}: {v}\n" for k, v in TINY.items()))
    return path


def test_two_pretrainings_give_the_same_bytes_and_load_in_transformers(workspace: Workspace, config: Path, cli) -> None:
    documents = []
    for more in ([], ["--again"]):
        code, out, err = cli("base", "pretrain", "--config", config, "--json", *more)
        assert code == 0, err
        documents.append(json.loads(out))
    one, two = ({o["path"].rpartition("/v00")[2][2:]: o["sha256"] for o in d["outputs"]} for d in documents)
    assert [d["version"] for d in documents] == ["v001", "v002"]
    assert one == two
    folder = Path(documents[0]["run_dir"]) / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.config.model_type == "qwen2"
    assert model.dtype.itemsize == 2  # bfloat16
    assert len(tokenizer) == model.config.vocab_size
    facts = documents[0]["facts"]
    assert facts["learned"]["titles"] + facts["unseen"]["titles"] == 40
    assert facts["behaviour"] == []
    assert "Nothing of anybody's behaviour" in (folder / "README.md").read_text()
    assert facts["tokens_seen"] > 0


def test_a_base_that_has_read_buyers_is_never_asked_about_them(workspace: Workspace, config: Path, cli) -> None:
    for name in ("food", "beauty"):
        write_domain_tables(workspace.root, name)
        assert cli("data", "build", name, "--config", f"{name}.yaml", "--quiet")[0] == 0
    read = [*("base", "pretrain", "--config", config, "--name", "reader", "--set", "behaviour=[food]", "--set", "max_title_tokens=4", "--json")]
    code, out, err = cli(*read)
    assert code == 0, err
    facts = json.loads(out)["facts"]
    assert [b["domain"] for b in facts["behaviour"]] == ["food"]
    assert facts["histories"] > 0
    card = json.loads((Path(json.loads(out)["run_dir"]) / "model/recmerge.json").read_text())
    assert card["behaviour"] == facts["behaviour"]
    assert card["prompt"]["max_title_tokens"] == 4
    assert cli("data", "mix", "beauty", "food", "--quiet")[0] == 0
    (workspace.root / "renamed.yaml").write_text("source: table\ninteractions: food_interactions.csv\nitems: food_items.csv\nseed: 1\n")
    assert cli("data", "build", "renamed", "--config", "renamed.yaml", "--quiet")[0] == 0
    short = ("--base", "reader", "--set", "prompt.style=open", "--set", "steps=1", "--quiet")
    assert cli("train", "beauty", "--name", "b", *short)[0] == 0
    for command in (
        ("train", "food", *short),
        ("train", "beauty_food", *short),
        ("train", "renamed", *short),
        ("infer", "food", "--adapter", "b"),
        ("infer", "food", "--adapter", "none", "--base", "reader"),
    ):
        code, out, err = cli(*command)
        assert (code, out) == (8, ""), command
        assert "has read the buyers of 'food'" in err


def test_behaviour_wants_a_built_domain_that_is_no_catalogue(workspace: Workspace, config: Path, cli) -> None:
    code, _, err = cli("base", "pretrain", "--config", config, "--set", "behaviour=[nowhere]")
    assert code == 4
    assert "recmerge data build nowhere" in err
    code, _, err = cli("base", "pretrain", "--config", config, "--set", "behaviour=[sports]")
    assert code == 2
    assert "'sports' stands under catalogues and under behaviour" in err


def test_a_base_is_found_by_name_path_and_version(workspace: Workspace, config: Path, cli) -> None:
    assert cli("base", "pretrain", "--config", config, "--quiet")[0] == 0
    folder = workspace.root / "runs/base/tiny/v001/model"
    for ref in ("tiny", "tiny@v001", str(folder), str(folder.parent)):
        assert find_base(workspace, ref).folder == folder
    assert base_label(workspace, str(folder)) == "tiny"
    assert base_label(workspace, "Qwen/Qwen2-7B-Instruct") == "Qwen2-7B-Instruct"


def test_a_folder_without_a_model_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json is not there"):
        find_base(workspace, str(tmp_path))


def test_an_id_of_the_hub_is_left_to_transformers(workspace: Workspace) -> None:
    base = find_base(workspace, "Qwen/Qwen2-7B-Instruct", "abc")
    assert (base.source, base.revision, base.folder) == ("Qwen/Qwen2-7B-Instruct", "abc", None)


def test_a_missing_hub_model_offline_is_one_line(workspace: Workspace, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write_domain_tables(workspace.root, "sports")
    assert cli("data", "build", "sports", "--config", "sports.yaml", "--quiet")[0] == 0
    code, out, err = cli("train", "sports", "--base", "nobody/no-such-model")
    assert (code, out) == (6, "")
    assert err.startswith("error[NETWORK]: base 'nobody/no-such-model'")
    assert err.count("\n") == 1


def test_the_shipped_base_is_small_and_knows_its_prompt() -> None:
    folder = shipped_base("nano")
    assert folder is not None
    assert sum(p.stat().st_size for p in folder.iterdir()) < 10_000_000
    assert json.loads((folder / "recmerge.json").read_text())["prompt"]["style"] == "open"
    assert (folder / "README.md").is_file()
