from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recmerge.data.building import build_clean
from recmerge.data.dataset import Domain, candidates_sha256, examples, read_domain, user_order, write_domain
from recmerge.data.sources import RawTables
from recmerge.data.splitting import Cuts, TimeSplit
from recmerge.errors import ArtifactError


@pytest.fixture
def domain(grid: Callable[..., RawTables]) -> Domain:
    return build_clean("d", grid(n_users=20), n_candidates=10)[0]


def test_what_is_written_is_read(domain: Domain, tmp_path: Path) -> None:
    write_domain(tmp_path, domain)
    again = read_domain(tmp_path)
    assert (again.name, again.profile) == ("d", "clean")
    for frame in ("items", "events", "users", "rows", "candidates"):
        assert getattr(again, frame).equals(getattr(domain, frame)), frame
    assert read_domain(tmp_path, "other").name == "other"


def test_a_missing_or_foreign_file_is_an_artifact_error(domain: Domain, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"domain\.json cannot be read"):
        read_domain(tmp_path)
    write_domain(tmp_path, domain)
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 not")
    with pytest.raises(ArtifactError, match=r"rows\.parquet cannot be read"):
        read_domain(tmp_path)
    (tmp_path / "domain.json").write_text('{"format": 99, "name": "d", "profile": "clean"}')
    with pytest.raises(ArtifactError, match="format 99"):
        read_domain(tmp_path)


def test_the_cuts_of_a_time_split_are_kept(domain: Domain, tmp_path: Path) -> None:
    write_domain(tmp_path, domain)
    whole = (tmp_path / "domain.json").read_text()
    assert "cuts" not in whole
    assert read_domain(tmp_path).cuts is None
    write_domain(tmp_path, replace(domain, cuts=Cuts(7, 9)))
    assert read_domain(tmp_path).cuts == Cuts(7, 9)
    (tmp_path / "domain.json").write_text(whole.replace('"profile"', '"cuts": [7], "profile"'))
    with pytest.raises(ArtifactError, match=r"domain\.json cannot be read"):
        read_domain(tmp_path)


def test_a_user_without_a_target_is_not_asked(grid: Callable[..., RawTables]) -> None:
    raw = grid(n_users=20)
    late = raw.interactions.with_columns(pl.col("timestamp") + pl.col("user_id").str.slice(1).cast(pl.Int64))  # u00 at 0 to 5, u19 at 19 to 24
    domain = build_clean("d", replace(raw, interactions=late), n_candidates=5, time_split=TimeSplit(cuts=Cuts(14, 20)))[0]
    asked = {split: {e.user_id: e for e in examples(domain, split)} for split in ("valid", "test")}
    assert sorted(asked["valid"]) == [f"u{u:02d}" for u in range(9, 14)]  # u08 ends at 13; u14 begins at 14 and has no history
    assert sorted(asked["test"]) == [f"u{u:02d}" for u in range(15, 20)]
    assert (asked["valid"]["u12"].history, asked["valid"]["u12"].target) == (("i12", "i13"), "i14")
    assert (asked["test"]["u19"].history, asked["test"]["u19"].target) == (("i19",), "i00")  # bought at 19, in the validation period, and 20
    assert len(examples(domain, "test", n_users=3)) == 3


def test_histories(domain: Domain) -> None:
    test = {e.user_id: e for e in examples(domain, "test")}
    valid = {e.user_id: e for e in examples(domain, "valid")}
    assert test["u03"].history == ("i03", "i04", "i05", "i06", "i07")
    assert test["u03"].target == "i08"
    assert valid["u03"].history == ("i03", "i04", "i05", "i06")
    assert valid["u03"].target == "i07"
    assert [e.user_id for e in examples(domain, "test")] == [f"u{u:02d}" for u in range(20)]


def test_a_sample_of_users_grows_and_is_the_same_for_both_splits(domain: Domain) -> None:
    few, more = ([e.user_id for e in examples(domain, "test", n_users=n)] for n in (5, 9))
    assert len(few) == 5
    assert set(few) < set(more)
    assert few == sorted(few)
    assert few == [e.user_id for e in examples(domain, "valid", n_users=5)]
    assert few != [e.user_id for e in examples(domain, "test", n_users=5, seed=1)]
    assert len(examples(domain, "test", n_users=1000)) == 20


def test_an_unknown_split(domain: Domain) -> None:
    with pytest.raises(ValueError, match="neither valid nor test"):
        examples(domain, "train")


def test_user_order_does_not_depend_on_the_order_given() -> None:
    users = [f"u{i}" for i in range(50)]
    assert user_order(users, 1) == user_order(reversed(users), 1)
    assert sorted(user_order(users, 1)) == sorted(users)
    assert user_order(users, 1) != user_order(users, 2)


def test_the_hash_of_candidates_ignores_order_and_nothing_else(domain: Domain) -> None:
    asked = examples(domain, "test")
    digest = candidates_sha256(asked)
    assert digest == candidates_sha256([replace(e, candidates=e.candidates[::-1]) for e in reversed(asked)])
    assert digest != candidates_sha256(asked[1:])
    first = asked[0]
    other = next(i for i in domain.titles if i not in first.candidates)
    assert digest != candidates_sha256([replace(first, candidates=(*first.candidates[1:], other)), *asked[1:]])
    assert digest != candidates_sha256([replace(first, target=first.candidates[0] if first.target != first.candidates[0] else first.candidates[1]), *asked[1:]])
