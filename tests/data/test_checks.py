from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from recmerge.data.building import build_clean
from recmerge.data.checks import check_set, shared_users
from recmerge.data.dataset import Domain
from recmerge.data.sources import RawTables
from recmerge.data.training_set import TrainingSet


@pytest.fixture
def domain(grid: Callable[..., RawTables]) -> Domain:
    return build_clean("d", grid(n_users=20), n_candidates=10)[0]


def findings(domain: Domain, rows: pl.DataFrame | None = None) -> list[str]:
    held = domain.rows if rows is None else rows
    return check_set(TrainingSet("d", {"d": domain}, held.select(pl.lit("d").alias("domain"), pl.all()))).findings


def edited(domain: Domain, **values: object) -> pl.DataFrame:
    """Change the first training row."""
    first = {**domain.rows.row(0, named=True), **values}
    return pl.concat([pl.DataFrame([first], schema=domain.rows.schema), domain.rows.slice(1)])


def test_a_good_domain_has_no_findings(domain: Domain) -> None:
    assert findings(domain) == []


@pytest.mark.parametrize(("position", "item", "what"), [(5, 5, "is a test event and a training row"), (4, 4, "is a validation event and a training row")])
def test_a_held_out_event_among_the_training_rows(domain: Domain, position: int, item: int, what: str) -> None:
    user = domain.rows["user_id"][0]
    target = f"i{(int(user[1:]) + item) % 20:02d}"
    found = findings(domain, edited(domain, position=position, target=target, candidates=[target, *free(domain, user, 9)]))
    assert f"d: user {user} position {position} target {target}: {what}" in found


def free(domain: Domain, user: str, n: int) -> list[str]:
    return [i for i in domain.titles if i not in domain.sequences[user]][:n]


def test_a_row_that_is_no_event_or_has_no_history(domain: Domain) -> None:
    user = domain.rows["user_id"][0]
    other = free(domain, user, 1)[0]
    assert any("no event of that user" in f for f in findings(domain, edited(domain, target=other, candidates=free(domain, user, 10))))
    assert any("without a history" in f for f in findings(domain, edited(domain, position=0, target=domain.sequences[user][0])))
    assert any("more than once" in f for f in findings(domain, pl.concat([domain.rows, domain.rows.head(1)])))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda t, own, free: [*free[:10]], "does not hold its target"),
        (lambda t, own, free: [t, t, *free[:8]], "holds its target more than once"),
        (lambda t, own, free: [t, free[0], free[0], *free[1:8]], "has two candidates of one title"),
        (lambda t, own, free: [t, own, *free[:8]], "has another item of the user's own"),
        (lambda t, own, free: [t, *free[:8]], "does not have 10 candidates"),
        (lambda t, own, free: [t, "nowhere", *free[:8]], "has a candidate that is no item"),
    ],
)
@pytest.mark.parametrize("where", ["row", "test"])
def test_broken_candidate_lists(domain: Domain, change: Callable[[str, str, list[str]], list[str]], what: str, where: str) -> None:
    user = domain.rows["user_id"][0]
    own = domain.sequences[user]
    if where == "row":
        target = domain.rows["target"][0]
        other = next(i for i in own if i != target)
        found = findings(domain, edited(domain, candidates=change(target, other, free(domain, user, 12))))
    else:
        lists = change(own[-1], own[0], free(domain, user, 12))
        here = (pl.col("user_id") == user) & (pl.col("split") == "test")
        broken = domain.candidates.with_columns(pl.when(here).then(pl.lit(lists)).otherwise("candidates").alias("candidates"))
        found = findings(replace(domain, candidates=broken))
    assert any(what in f and f"user {user}" in f for f in found), found


def test_two_items_of_one_title_are_found_by_title(domain: Domain) -> None:
    same = domain.items.with_columns(pl.lit("All alike").alias("title"))
    assert any("two candidates of one title" in f for f in findings(replace(domain, items=same)))


def test_a_wrong_split_or_question(domain: Domain) -> None:
    moved = domain.events.with_columns(pl.when(pl.col("position") == 5).then(pl.lit("train")).otherwise("split").alias("split"))
    assert any("not in the split" in f for f in findings(replace(domain, events=moved)))
    assert any("held out but not asked about" in f for f in findings(replace(domain, candidates=domain.candidates.slice(1))))
    assert any("asked about more than once" in f for f in findings(replace(domain, candidates=pl.concat([domain.candidates, domain.candidates.head(1)]))))


def test_published_validation_rows_are_noted_not_faults(domain: Domain) -> None:
    valid = domain.candidates.filter(pl.col("split") == "valid").select("user_id", pl.lit(4, pl.Int32).alias("position"), "target", "candidates")
    rows = pl.concat([domain.rows, valid])
    published = replace(domain, profile="published")
    report = check_set(TrainingSet("d", {"d": published}, rows.select(pl.lit("d").alias("domain"), pl.all())))
    assert report.findings == []
    assert report.notes["validation_rows_trained_on_d"] == 20
    assert len(findings(domain, rows)) == 20


def test_users_of_two_domains_are_counted(raw_tables: Callable[..., RawTables]) -> None:
    def build(name: str, prefix: str, start: int) -> Domain:
        events = [(f"{prefix if u else ''}u{u}", f"i{(u + t) % 12:02d}", start + t) for u in range(12) for t in range(5)]
        return build_clean(name, raw_tables(events, {f"i{i:02d}": f"T {i}" for i in range(12)}), n_candidates=5)[0]

    a, b = build("a", "x", 0), build("b", "y", 100)  # only u0 is in both, and all it does in b is after its test in a
    notes = shared_users(TrainingSet("m", {"a": a, "b": b}, a.rows))
    assert notes == {"users_shared_a_b": 1, "users_train_after_test_a_b": 1}
