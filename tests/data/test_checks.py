from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from recmerge.data.building import build_clean
from recmerge.data.checks import check_set
from recmerge.data.dataset import Domain
from recmerge.data.sources import RawTables
from recmerge.data.splitting import Cuts, TimeSplit
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


def both(a: Domain, b: Domain, rows: pl.DataFrame | None = None) -> TrainingSet:
    """Put two domains into one set; `rows` replaces those of a."""
    parts = [(a.rows if rows is None else rows).select(pl.lit("a").alias("domain"), pl.all()), b.rows.select(pl.lit("b").alias("domain"), pl.all())]
    return TrainingSet("a_b", {"a": a, "b": b}, pl.concat(parts))


@pytest.fixture
def other(grid: Callable[..., RawTables]) -> Domain:
    """A domain of other users."""
    raw = grid(n_users=20)
    return build_clean("b", replace(raw, interactions=raw.interactions.with_columns(pl.col("user_id").str.replace("u", "v"))), n_candidates=10)[0]


def test_a_purchase_that_another_domain_holds_out(domain: Domain, other: Domain) -> None:
    a = replace(domain, name="a")
    assert check_set(both(a, other)).findings == []
    user, target = a.rows.select("user_id", "target").row(0)
    test = (pl.col("split") == "test") & (pl.col("user_id") == "v00")
    events = other.events.with_columns(pl.when(test).then(pl.lit(target)).otherwise("item_id").alias("item_id"))
    events = events.with_columns(pl.when(pl.col("user_id") == "v00").then(pl.lit(user)).otherwise("user_id").alias("user_id"))
    found = check_set(both(a, replace(other, events=events))).findings
    assert any(f.startswith(f"a: user {user} ") and f.endswith("a validation or test event of another domain of the set") for f in found), found
    published = both(replace(a, profile="published"), replace(other, events=events, profile="published"))
    assert check_set(published).notes["rows_held_out_elsewhere_a"] == 1


def test_rows_of_a_domain_that_is_not_in_the_set(domain: Domain) -> None:
    rows = domain.rows.select(pl.lit("toys").alias("domain"), pl.all())
    found = check_set(TrainingSet("d", {"d": domain}, rows)).findings
    assert len(found) == 60
    assert found[0].endswith("is a training row of a domain that the set does not hold")


def test_a_target_that_the_history_holds(domain: Domain) -> None:
    last = (pl.col("user_id") == "u03") & (pl.col("position") == 5)
    again = domain.events.with_columns(pl.when(last).then(pl.lit("i03")).otherwise("item_id").alias("item_id"))
    found = findings(replace(domain, events=again))
    assert "d: split test user u03 position 5: is a target that its user's history holds" in found
    report = check_set(TrainingSet("d", {"d": replace(domain, events=again, profile="published")}, domain.rows.select(pl.lit("d").alias("domain"), pl.all())))
    assert report.notes["targets_in_their_history_d"] == 1


def test_events_out_of_order_in_time(domain: Domain) -> None:
    here = (pl.col("user_id") == "u03") & (pl.col("position") == 2)
    turned = domain.events.with_columns(pl.when(here).then(-1).otherwise("timestamp").alias("timestamp"))
    assert findings(replace(domain, events=turned)) == ["d: split train user u03 position 2: is earlier than the event before it"]
    blank = (pl.col("user_id") == "u03") & (pl.col("position") == 0)  # one unknown time, and the order of the file counts
    unknown = turned.with_columns(pl.when(blank).then(None).otherwise("timestamp").alias("timestamp"))
    assert findings(replace(domain, events=unknown)) == []


@pytest.fixture
def timed(raw_tables: Callable[..., RawTables]) -> Callable[..., Domain]:
    """Build a domain of users who begin one after the other, split by time."""

    def make(name: str, user: str = "u", cuts: Cuts | None = None) -> Domain:
        events = [(f"{user}{u:02d}", f"{name}{(u + t) % 20:02d}", u + t) for u in range(20) for t in range(6)]
        raw = raw_tables(events, {f"{name}{i:02d}": f"Title {i}" for i in range(20)})
        return build_clean(name, raw, n_candidates=5, time_split=TimeSplit(0.2, 0.2, cuts))[0]

    return make


def test_a_good_time_split_has_no_findings(timed: Callable[..., Domain]) -> None:
    assert findings(timed("d")) == []
    assert check_set(both(timed("a"), timed("b"))).findings == []


def test_training_behind_a_cut_is_an_error_under_a_time_split(timed: Callable[..., Domain]) -> None:
    a, b = timed("a"), timed("b", cuts=Cuts(20, 22))
    assert a.cuts is not None
    assert a.cuts.test < 20
    report = check_set(both(a, b))
    late = [f for f in report.findings if f.endswith("is a training row later than the set's first cut in time")]
    assert len(late) == b.events.filter((pl.col("timestamp") >= a.cuts.valid) & (pl.col("split") == "train") & (pl.col("position") > 0)).height > 0
    assert any(f.startswith("a: user u") and f.endswith("is a user with training events in b after their test") for f in report.findings)
    unsplit = replace(b, cuts=None)
    assert check_set(TrainingSet("b", {"b": unsplit}, b.rows.select(pl.lit("b").alias("domain"), pl.all()))).findings != []


def test_a_held_out_event_that_nobody_asks_about_is_no_training_row(timed: Callable[..., Domain]) -> None:
    domain = timed("d")
    user, position, target = domain.events.filter((pl.col("split") == "unasked") & (pl.col("position") > 0)).select("user_id", "position", "item_id").row(0)
    found = findings(domain, edited(domain, user_id=user, position=position, target=target, candidates=[target, *free(domain, user, 4)]))
    assert f"d: user {user} position {position} target {target}: is a held-out event and a training row" in found
    assert f"d: user {user} position {position}: is a training row later than the set's first cut in time" in found


def test_another_cut_than_the_events_show_is_found(timed: Callable[..., Domain]) -> None:
    domain = timed("d")
    assert domain.cuts is not None
    assert any("not in the split" in f for f in findings(replace(domain, cuts=Cuts(domain.cuts.valid + 1, domain.cuts.test))))


def test_users_of_two_domains_are_notes_under_leave_one_out(raw_tables: Callable[..., RawTables]) -> None:
    def build(name: str, prefix: str, start: int) -> Domain:
        events = [(f"{prefix if u else ''}u{u}", f"{name}{(u + t) % 12:02d}", start + t) for u in range(12) for t in range(5)]
        return build_clean(name, raw_tables(events, {f"{name}{i:02d}": f"T {i}" for i in range(12)}), n_candidates=5)[0]

    a, b = build("a", "x", 0), build("b", "y", 100)  # only u0 is in both, and all it does in b is after its test in a
    report = check_set(both(a, b))
    assert report.findings == []
    assert report.notes == {
        "users_shared_a_b": 1,
        "users_trained_in_b_after_test_in_a": 1,
        "test_users_tested_before_training_of_others_a": 0,
        "test_users_tested_before_training_of_others_b": 0,
    }
