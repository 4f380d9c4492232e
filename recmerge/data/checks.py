"""Look for leaks and broken candidate lists in a data set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import permutations

import polars as pl

from recmerge.data.dataset import Domain
from recmerge.data.leakage import future_counts, held_out_elsewhere, shared_users, trained_after_test
from recmerge.data.splitting import split_by_time, split_events
from recmerge.data.training_set import TrainingSet
from recmerge.names import CANDIDATES, DOMAIN, ITEM_ID, POSITION, SPLIT, TARGET, TEST, TIMESTAMP, TITLE, TRAIN, UNASKED, USER_ID, VALID

_ROW = "row"
_WHERE = (SPLIT, USER_ID, POSITION)


@dataclass
class CheckReport:
    """What was found.

    Args:
        findings: Faults, one line each.
        notes: Things worth knowing that are no faults, with their counts.
    """

    findings: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def add(self, domain: str, what: str, rows: pl.DataFrame) -> None:
        """Add one finding per row; its columns say where."""
        for values in rows.iter_rows(named=True):
            where = " ".join(f"{key.removesuffix('_id')} {value}" for key, value in values.items())
            self.findings.append(f"{domain}: {where}: {what}")


def check_set(training_set: TrainingSet) -> CheckReport:
    """Check a domain or a mixed set.

    Args:
        training_set: With its domains.

    Returns:
        All findings: held-out events of any domain of the set among the training rows, rows that are no event, candidate lists that are not
        `n` different titles with the target once and nothing else of the user's own, events that are out of order or not in the split
        their place or time says; and under a time split whatever is trained on later than a cut of any domain of the set.
    """
    report = CheckReport()
    for name, domain in sorted(training_set.domains.items()):
        rows = training_set.rows.filter(pl.col(DOMAIN) == name).drop(DOMAIN)
        _check_splits(domain, report)
        _check_questions(domain, report)
        _check_rows(domain, rows, report)
        _check_candidates(domain, rows.select(pl.lit(TRAIN).alias(SPLIT), USER_ID, POSITION, TARGET, CANDIDATES), report)
        asked = domain.candidates.join(domain.events.select(SPLIT, USER_ID, POSITION), on=[SPLIT, USER_ID], how="left")
        _check_candidates(domain, asked.select(*_WHERE, TARGET, CANDIDATES), report)
        report.notes[f"test_users_tested_before_training_of_others_{name}"] = int(future_counts(domain)["test_users_tested_before_training"])
    _check_across(training_set, report)
    report.notes.update(shared_users(training_set.domains))
    return report


def _check_across(training_set: TrainingSet, report: CheckReport) -> None:
    """No row predicts what another domain holds out, and under a time split nothing trained on is later than any domain's cut."""
    domains = training_set.domains
    strange = training_set.rows.filter(~pl.col(DOMAIN).is_in(sorted(domains)))
    report.add(training_set.name, "is a training row of a domain that the set does not hold", strange.select(DOMAIN, USER_ID, POSITION))
    for name, domain in sorted(domains.items()):
        rows = training_set.rows.filter(pl.col(DOMAIN) == name).select(USER_ID, POSITION, TARGET)
        held_out = rows.join(held_out_elsewhere(name, domains), on=[USER_ID, TARGET], how="semi", maintain_order="left")
        if domain.profile != "published":
            report.add(name, "is a training row and a validation or test event of another domain of the set", held_out)
        elif held_out.height:
            report.notes[f"rows_held_out_elsewhere_{name}"] = held_out.height
    cut = min((d.cuts.valid for d in domains.values() if d.cuts is not None), default=None)
    if cut is None:
        return
    for name, domain in sorted(domains.items()):
        events = domain.events.select(USER_ID, POSITION, TIMESTAMP)
        rows = training_set.rows.filter(pl.col(DOMAIN) == name).select(USER_ID, POSITION).join(events, on=[USER_ID, POSITION])
        late = rows.filter((pl.col(TIMESTAMP) >= cut).fill_null(True))
        report.add(name, "is a training row later than the set's first cut in time", late.select(USER_ID, POSITION))
    for a, b in permutations(sorted(domains), 2):
        report.add(a, f"is a user with training events in {b} after their test", trained_after_test(domains[a], domains[b]))


def _check_splits(domain: Domain, report: CheckReport) -> None:
    """Every event stands in its place in time and in the split that its place or its time says."""
    bare = domain.events.drop(POSITION, SPLIT)
    wanted = split_events(bare) if domain.cuts is None else split_by_time(bare, domain.cuts)
    differs = (domain.events[POSITION] != wanted[POSITION]) | (domain.events[SPLIT] != wanted[SPLIT])
    report.add(domain.name, "is not in the split its place in the sequence says", domain.events.filter(differs).select(*_WHERE))
    time = pl.col(TIMESTAMP)
    back = ((time < time.shift(1)) & ~time.is_null().any()).over(USER_ID).fill_null(False)
    report.add(domain.name, "is earlier than the event before it", domain.events.filter(back).select(*_WHERE))


def _check_questions(domain: Domain, report: CheckReport) -> None:
    """Each event held out as a target is asked about once, and is new to its user.

    Where there is nothing to train on and no question of validation, the test alone is held out: such questions came with their file.
    """
    test_only = domain.rows.is_empty() and domain.candidates.filter(pl.col(SPLIT) == VALID).is_empty()
    held_out = domain.events.filter(pl.col(SPLIT).is_in([TEST] if test_only else [VALID, TEST])).select(SPLIT, USER_ID, pl.col(ITEM_ID).alias(TARGET))
    asked = domain.candidates.select(SPLIT, USER_ID, TARGET)
    report.add(domain.name, "is held out but not asked about", held_out.join(asked, on=[SPLIT, USER_ID, TARGET], how="anti"))
    report.add(domain.name, "is asked about but is not the event held out", asked.join(held_out, on=[SPLIT, USER_ID, TARGET], how="anti"))
    report.add(domain.name, "is asked about more than once", asked.filter(asked.is_duplicated()).unique(maintain_order=True))
    again = pl.int_range(pl.len()).over(USER_ID, ITEM_ID) > 0
    known = domain.events.filter(again & pl.col(SPLIT).is_in([VALID, TEST])).select(*_WHERE)
    if domain.profile == "published":
        report.notes[f"targets_in_their_history_{domain.name}"] = known.height
    else:
        report.add(domain.name, "is a target that its user's history holds", known)


def _check_rows(domain: Domain, rows: pl.DataFrame, report: CheckReport) -> None:
    """Every training row predicts a training event that has a history."""
    events = domain.events.select(USER_ID, POSITION, ITEM_ID, SPLIT)
    known = rows.select(USER_ID, POSITION, TARGET).join(events, on=[USER_ID, POSITION], how="left", maintain_order="left")
    where = (USER_ID, POSITION, TARGET)
    report.add(
        domain.name, "is a training row but no event of that user", known.filter(pl.col(ITEM_ID).is_null() | (pl.col(ITEM_ID) != pl.col(TARGET))).select(where)
    )
    report.add(domain.name, "is a training row without a history", known.filter(pl.col(POSITION) < 1).select(where))
    report.add(domain.name, "is a test event and a training row", known.filter(pl.col(SPLIT) == TEST).select(where))
    report.add(domain.name, "is a held-out event and a training row", known.filter(pl.col(SPLIT) == UNASKED).select(where))
    validation = known.filter(pl.col(SPLIT) == VALID)
    if domain.profile == "published":
        report.notes[f"validation_rows_trained_on_{domain.name}"] = validation.height
    else:
        report.add(domain.name, "is a validation event and a training row", validation.select(where))
        tested = domain.events.filter(pl.col(SPLIT) == TEST).select(USER_ID, pl.col(ITEM_ID).alias(TARGET))
        again = known.filter(pl.col(SPLIT) != TEST).join(tested, on=[USER_ID, TARGET], how="semi")
        report.add(domain.name, "predicts the item that is this user's test", again.select(where))
    twice = known.filter(known.select(USER_ID, POSITION).is_duplicated())
    report.add(domain.name, "is a training row more than once", twice.select(where).unique(maintain_order=True))


def _check_candidates(domain: Domain, lists: pl.DataFrame, report: CheckReport) -> None:
    """Check lists with split, user_id, position, target, candidates."""
    if lists.is_empty():
        return
    n = int(domain.candidates[CANDIDATES].list.len().mode().sort()[0])
    short = lists.filter(pl.col(CANDIDATES).list.len() != n)
    report.add(domain.name, f"does not have {n} candidates", short.select(_WHERE))
    published = domain.profile == "published"
    for part in _slices(lists):
        long = part.with_row_index(_ROW).select(_ROW, USER_ID, TARGET, pl.col(CANDIDATES).alias(ITEM_ID)).explode(ITEM_ID)
        times = long.group_by(_ROW).agg((pl.col(ITEM_ID) == pl.col(TARGET)).sum().alias("times"))
        report.add(domain.name, "does not hold its target", _places(part, times.filter(pl.col("times") == 0)))
        titled = long.join(domain.items.select(ITEM_ID, TITLE), on=ITEM_ID, how="left")
        unknown = titled.filter(pl.col(TITLE).is_null())
        equal = titled.group_by(_ROW).agg(pl.col(TITLE).n_unique() < pl.len()).filter(pl.col(TITLE))
        own = long.filter(pl.col(ITEM_ID) != pl.col(TARGET)).join(domain.events.select(USER_ID, ITEM_ID), on=[USER_ID, ITEM_ID], how="semi")
        report.add(domain.name, "has a candidate that is no item", _places(part, unknown))
        if published:
            for key, faulty in (("lists_with_equal_titles", equal), ("lists_with_own_items", own)):
                key = f"{key}_{domain.name}"
                report.notes[key] = report.notes.get(key, 0) + faulty[_ROW].n_unique()
            continue
        report.add(domain.name, "holds its target more than once", _places(part, times.filter(pl.col("times") > 1)))
        report.add(domain.name, "has two candidates of one title", _places(part, equal))
        report.add(domain.name, "has another item of the user's own as a candidate", _places(part, own))


def _slices(lists: pl.DataFrame) -> Iterator[pl.DataFrame]:
    yield from lists.iter_slices(50_000)  # exploded, a slice of 30 candidates each has 1.5 million rows


def _places(part: pl.DataFrame, faulty: pl.DataFrame) -> pl.DataFrame:
    return part[faulty[_ROW].unique().sort()].select(_WHERE)
