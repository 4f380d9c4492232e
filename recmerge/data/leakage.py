"""Count what a model could know of the future: within one domain, and across the domains of a set."""

from collections.abc import Mapping
from itertools import permutations

import polars as pl

from recmerge.data.dataset import Domain
from recmerge.names import ITEM_ID, SPLIT, TARGET, TEST, TIMESTAMP, TRAIN, USER_ID, VALID

_TESTED = "tested"


def learnt_events(domain: Domain) -> pl.DataFrame:
    """Return the events that training rows may predict: user_id, item_id, timestamp; of a published profile validation too."""
    splits = (TRAIN, VALID) if domain.profile == "published" else (TRAIN,)
    return domain.events.filter(pl.col(SPLIT).is_in(splits)).select(USER_ID, ITEM_ID, TIMESTAMP)


def future_counts(domain: Domain) -> dict[str, int | float]:
    """Count how far training and test overlap in time, which leave-one-out cannot prevent and a time split does.

    Source: Ji et al. (2023), "A Critical Study on Data Leakage in Recommender System Offline Evaluation".

    Args:
        domain: Any profile and split; events of unknown time are left out.

    Returns:
        `test_users`; `test_users_training_after_tests`: those with a training event later than the test event of another user;
        `test_users_tested_before_training`: those whose test event is earlier than a training event of another user;
        `train_share_after_median_test`: the share (0 to 1) of training events later than the median test event (of an even number of
        tests the earlier middle one). Later and earlier are strict.
    """
    known = pl.col(TIMESTAMP).is_not_null()
    test = domain.events.filter(pl.col(SPLIT) == TEST).select(USER_ID, TIMESTAMP)
    tests, learnt = test.filter(known), learnt_events(domain).filter(known)
    last = learnt.group_by(USER_ID).agg(pl.col(TIMESTAMP).max())
    trained_after = last.join(test, on=USER_ID, how="semi").filter(pl.col(TIMESTAMP) > _extreme_of_others(tests, latest=False))
    tested_before = tests.filter(pl.col(TIMESTAMP) < _extreme_of_others(last, latest=True))
    median = tests[TIMESTAMP].sort()[(tests.height - 1) // 2] if tests.height else None
    n_after = learnt.filter(pl.col(TIMESTAMP) > pl.lit(median, pl.Int64)).height
    return {
        "test_users": test.height,
        "test_users_training_after_tests": trained_after.height,
        "test_users_tested_before_training": tested_before.height,
        "train_share_after_median_test": round(n_after / max(learnt.height, 1), 4),
    }


def _extreme_of_others(times: pl.DataFrame, *, latest: bool) -> pl.Expr:
    """Return for any user the earliest or latest time of the other users; `times` has one known time per user."""
    two = times.sort(TIMESTAMP, USER_ID, descending=latest).head(2)
    first, second = (*two[TIMESTAMP], None, None)[:2]
    own = two[USER_ID][0] if two.height else None
    return pl.when(pl.col(USER_ID) == pl.lit(own, pl.String)).then(pl.lit(second, pl.Int64)).otherwise(pl.lit(first, pl.Int64))


def shared_users(domains: Mapping[str, Domain]) -> dict[str, int]:
    """Count users of several domains, and those whose future in one domain is another's training.

    Args:
        domains: By name.

    Returns:
        `users_shared_<a>_<b>`, and in either direction `users_trained_in_<b>_after_test_in_<a>`: with a training event in b
        strictly later than their test event in a, which a model trained on both has seen when it is asked about a; where not zero.
    """
    notes: dict[str, int] = {}
    for a, b in permutations(sorted(domains), 2):
        shared = domains[a].users.join(domains[b].users, on=USER_ID, how="semi").height
        if shared and a < b:
            notes[f"users_shared_{a}_{b}"] = shared
        affected = trained_after_test(domains[a], domains[b]).height if shared else 0
        if affected:
            notes[f"users_trained_in_{b}_after_test_in_{a}"] = affected
    return notes


def trained_after_test(asked: Domain, trained: Domain) -> pl.DataFrame:
    """Return the users with a training event in one domain strictly later than their test event in another.

    Args:
        asked: Where they are tested.
        trained: Where they are trained on.

    Returns:
        user_id, sorted; unknown times are later than nothing.
    """
    test = asked.events.filter(pl.col(SPLIT) == TEST).select(USER_ID, pl.col(TIMESTAMP).alias(_TESTED))
    later = learnt_events(trained).join(test, on=USER_ID).filter(pl.col(TIMESTAMP) > pl.col(_TESTED))
    return later.select(USER_ID).unique().sort(USER_ID)


def held_out_elsewhere(name: str, domains: Mapping[str, Domain]) -> pl.DataFrame:
    """Return what rows of a domain must not predict: purchases that another domain of the set holds out.

    One purchase may stand in two catalogues, e.g. where an item has two categories.

    Args:
        name: The domain whose rows are looked at.
        domains: Of the set, by name.

    Returns:
        user_id, target: the validation and test events of the other domains; of those of a published profile, which trains on its
        validation, the test events.
    """
    parts = []
    for other, domain in sorted(domains.items()):
        splits = (TEST,) if domain.profile == "published" else (VALID, TEST)
        if other != name:
            parts.append(domain.events.filter(pl.col(SPLIT).is_in(splits)).select(USER_ID, pl.col(ITEM_ID).alias(TARGET)))
    return pl.concat(parts) if parts else pl.DataFrame(schema={USER_ID: pl.String, TARGET: pl.String})
