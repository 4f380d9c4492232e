import json
from pathlib import Path
from typing import Any

import pytest

from recmerge.runs import Workspace
from recmerge.stages.doctor import cache_dir, examine


def test_the_document(workspace: Workspace, cli: Any):
    code, out, err = cli("doctor", "--json")
    document = json.loads(out)
    assert (code, err) == (0, "")
    for package in ("torch", "transformers", "peft", "trl", "polars"):
        assert document["packages"][package]
    assert document["device"]["kind"] in {"cpu", "cuda"}
    assert document["device"]["threads"] >= 1
    assert 0 < document["memory"]["available_bytes"] <= document["memory"]["total_bytes"]
    assert document["workspace"]["free_bytes"] > 0
    assert document["workspace"]["path"] == str(workspace.root)
    assert set(document["bundled"]) == {"base", "sample"}
    assert list(workspace.root.iterdir()) == []  # it writes nothing


def test_for_a_reader(workspace: Workspace, cli: Any):
    code, out, err = cli("doctor")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()][:4] == ["recmerge", "python", "packages", "device"]
    assert err == "next: recmerge demo\n"


def test_a_workspace_that_is_not_there_yet_has_its_parents_disk(tmp_path: Path):
    assert examine(Workspace(tmp_path / "a" / "b"))["workspace"]["free_bytes"] > 0


def test_caches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("RECMERGE_CACHE", raising=False)
    assert cache_dir() == Path("/x/recmerge")
    monkeypatch.setenv("RECMERGE_CACHE", "/own")
    assert cache_dir() == Path("/own")
    monkeypatch.setenv("HF_HOME", "/hf")
    assert examine(Workspace(Path("/")))["caches"] == {"recmerge": "/own", "hugging_face": "/hf"}


def test_a_package_that_is_missing_or_too_old_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from importlib import metadata

    versions = {"peft": "0.1.0"}

    def version(name: str) -> str:
        if name == "trl":
            raise metadata.PackageNotFoundError(name)
        return versions.get(name, "9999" if name == "torch" else real(name))

    real = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    facts = examine(Workspace(tmp_path))
    (row,) = [m for m in facts["missing"] if m["needed_for"] == "recmerge itself"]
    assert "peft<0.22,>=0.21 (found 0.1.0)" in row["what"]
    assert "trl" in row["what"]
    assert "torch" not in row["what"]
    assert facts["packages"]["trl"] is None
