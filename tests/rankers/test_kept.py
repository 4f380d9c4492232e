"""What is kept in the user's cache folder."""

from pathlib import Path

import numpy as np
import pytest

from recmerge.rankers.kept import cache_folder, kept


def test_what_is_kept_is_told_apart_by_kind_and_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECMERGE_CACHE", str(tmp_path))
    asked = [("a", b"1"), ("a", b"2"), ("b", b"1"), ("a", b"1")]
    found = [kept(kind, told, lambda place=place: {"place": np.asarray([place])})["place"].tolist() for place, (kind, told) in enumerate(asked)]  # type: ignore[misc]
    assert found == [[0], [1], [2], [0]]


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RECMERGE_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("RECMERGE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "recmerge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "recmerge"
