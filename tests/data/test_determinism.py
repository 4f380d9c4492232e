"""Equal data and seeds give equal bytes, whatever the order of the rows; another seed changes the draws alone."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recmerge.data.building import build_clean, build_published
from recmerge.data.dataset import CANDIDATES_FILE, DOMAIN_FILES, ROWS_FILE, Domain, write_domain
from recmerge.data.mixing import mix_rows
from recmerge.data.sources import RawTables
from recmerge.data.splitting import TimeSplit

Build = Callable[..., Domain]


def clean(raw: RawTables, **settings: object) -> Domain:
    return build_clean("d", raw, n_candidates=10, **settings)[0]


def by_time(raw: RawTables, **settings: object) -> Domain:
    return build_clean("d", raw, n_candidates=10, time_split=TimeSplit(0.2, 0.2), **settings)[0]


def published(raw: RawTables, **settings: object) -> Domain:
    return build_published("d", raw, n_candidates=10, max_rows=50, **settings)[0]


EVERY = pytest.mark.parametrize("build", [clean, by_time, published])


@pytest.fixture
def raw(raw_tables: Callable[..., RawTables]) -> RawTables:
    """Forty users who begin one day after the other and buy every day or every second day: no user has two events of one time."""
    events = [(f"u{u:02d}", f"i{(3 * u + t) % 30:02d}", 86_400 * (u + t * (1 + u % 2))) for u in range(40) for t in range(7)]
    return raw_tables(events, {f"i{i:02d}": f"Title {i}" for i in range(30)})


def with_ties(raw: RawTables) -> RawTables:
    """Put three days each onto one time, and let some purchases stand twice."""
    tied = raw.interactions.with_columns(pl.col("timestamp") // (3 * 86_400) * 86_400)
    return replace(raw, interactions=pl.concat([tied, tied.head(11)]))


def shuffled(raw: RawTables, seed: int) -> RawTables:
    """Shuffle the rows of both tables; users with an unknown time keep the order of their own rows."""
    mixed = raw.interactions.with_row_index("place").sample(fraction=1, shuffle=True, seed=seed)
    unknown = pl.col("timestamp").is_null().any().over("user_id")
    kept = mixed.filter(unknown).sort("user_id", "place")
    mixed = mixed.with_columns(slot=pl.int_range(pl.len()).over("user_id"))
    kept = kept.with_columns(slot=pl.int_range(pl.len()).over("user_id"))
    again = mixed.filter(unknown).select("user_id", "slot").join(kept, on=["user_id", "slot"], maintain_order="left").select(mixed.columns)
    order = mixed.with_row_index("line").filter(unknown)["line"]
    free = mixed.with_row_index("line").filter(~unknown)
    interactions = pl.concat([free, again.with_columns(line=order).select(free.columns)]).sort("line")
    return replace(raw, interactions=interactions.select(raw.interactions.columns), items=raw.items.sample(fraction=1, shuffle=True, seed=seed))


def digests(domain: Domain, folder: Path) -> dict[str, str]:
    folder.mkdir()
    write_domain(folder, domain)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in DOMAIN_FILES}


@EVERY
def test_two_builds_are_byte_identical(raw: RawTables, tmp_path: Path, build: Build) -> None:
    assert digests(build(with_ties(raw)), tmp_path / "one") == digests(build(with_ties(raw)), tmp_path / "two")


@pytest.mark.parametrize("build", [clean, by_time])
@pytest.mark.parametrize("tie_break", ["item_id", "hash"])
@pytest.mark.parametrize("users", [None, 30])
def test_the_order_of_rows_does_not_matter(raw: RawTables, tmp_path: Path, build: Build, tie_break: str, users: int | None) -> None:
    settings = {"tie_break": tie_break, "n_users": users, "k": 3}
    found = [digests(build(shuffled(with_ties(raw), seed), **settings), tmp_path / str(seed)) for seed in (1, 2)]
    assert found[0] == found[1] == digests(build(with_ties(raw), **settings), tmp_path / "as_it_is")


def test_the_published_profile_minds_the_order_of_equal_times_alone(raw: RawTables, tmp_path: Path) -> None:
    assert digests(published(shuffled(raw, 1)), tmp_path / "one") == digests(published(raw), tmp_path / "two")
    tied = with_ties(raw)
    assert digests(published(replace(tied, interactions=tied.interactions.reverse())), tmp_path / "three") != digests(published(tied), tmp_path / "four")


@pytest.mark.parametrize("build", [clean, published])
def test_users_of_unknown_times_need_the_order_of_their_own_rows_alone(raw: RawTables, tmp_path: Path, build: Build) -> None:
    blank = pl.col("user_id").is_in(["u03", "u17"]) & (pl.col("item_id") < "i15")
    partly = replace(raw, interactions=raw.interactions.with_columns(pl.when(~blank).then(pl.col("timestamp")).alias("timestamp")))
    assert 0 < partly.interactions["timestamp"].null_count() < 14
    assert not shuffled(partly, 1).interactions.equals(partly.interactions)
    wanted = digests(build(partly), tmp_path / "as_it_is")
    assert digests(build(shuffled(partly, 1)), tmp_path / "shuffled") == wanted
    turned = replace(partly, interactions=partly.interactions.reverse())
    assert digests(build(turned), tmp_path / "turned") != wanted  # there the order of the file is all that is known


@EVERY
def test_another_seed_changes_candidates_and_samples_alone(raw: RawTables, tmp_path: Path, build: Build) -> None:
    one, two = (digests(build(with_ties(raw), seed=seed), tmp_path / str(seed)) for seed in (1, 2))
    assert {name for name in DOMAIN_FILES if one[name] != two[name]} == {ROWS_FILE, CANDIDATES_FILE}


def test_another_seed_asks_the_same_questions(raw: RawTables) -> None:
    one, two = (by_time(raw, seed=seed) for seed in (1, 2))
    questions = ["split", "user_id", "target"]
    assert one.candidates.select(questions).equals(two.candidates.select(questions))
    assert sorted(one.rows.select("user_id", "position", "target").rows()) == sorted(two.rows.select("user_id", "position", "target").rows())


def test_a_mix_of_shuffled_domains_is_the_same(raw: RawTables, raw_tables: Callable[..., RawTables]) -> None:
    events = [(f"v{u:02d}", f"j{(u + t) % 25:02d}", u + t) for u in range(30) for t in range(6)]
    other = raw_tables(events, {f"j{i:02d}": f"Other {i}" for i in range(25)})
    mixes = []
    for seed in (1, 2):
        a, b = clean(shuffled(raw, seed)), build_clean("b", shuffled(other, seed), n_candidates=10)[0]
        mixes.append(mix_rows([a, b], {"d": 40, "b": 40}, 42))
    assert mixes[0].equals(mixes[1])


_BUILD = ("-m", "recmerge", "data", "build", "sports", "--json", "--workspace")


def test_processes_threads_and_file_order_do_not_matter(table_domain: Callable[..., Path], tmp_path: Path) -> None:
    config = table_domain("sports")
    found = []
    for i, (hash_seed, threads) in enumerate((("1", "1"), ("2", "4"))):
        done = subprocess.run(
            [sys.executable, *_BUILD, str(tmp_path / f"workspace{i}"), "--config", str(config)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "POLARS_MAX_THREADS": threads},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        folder = tmp_path / f"workspace{i}" / "data" / "processed" / "sports" / "v001"
        found.append({name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in DOMAIN_FILES})
        for table in config.parent.glob("*.csv"):  # turn the lines of both tables round for the second build
            head, *lines = table.read_text(encoding="utf-8").splitlines()
            table.write_text("\n".join([head, *reversed(lines)]) + "\n", encoding="utf-8")
    assert found[0] == found[1]
