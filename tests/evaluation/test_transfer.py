"""Where a system is worse than its baseline, slice by slice."""

from dataclasses import replace

import numpy as np

from recmerge.evaluation.ranks import Ranks
from recmerge.evaluation.summary import Evaluated
from recmerge.evaluation.transfer import alarm_lines, transfer

N = 400


def system(key: str, n_better: np.ndarray) -> Evaluated:
    users = np.array([f"u{i:03d}" for i in range(N)])
    ranks = Ranks(users, np.full(N, 30), n_better.astype(float), np.zeros(N, dtype=np.int64))
    even = np.arange(N) % 2 == 0
    return Evaluated(key, key, ranks, (1, 5), "same", {"all": np.ones(N, dtype=bool), "even": even, "odd": ~even})


def test_a_loss_in_a_slice_is_seen_though_the_whole_is_level() -> None:
    i = np.arange(N)
    own = system("own", np.where(i % 4 < 2, 0, 3))  # right for users 0, 1 of every four
    moved = system("moved", np.where(i % 2 == 1, 0, 3))  # right for all odd users: 100 won, 100 lost
    found = transfer([moved], own, 500)
    rows = {row["slice"]: row for row in found["rows"]}
    assert found["metric"] == "ndcg@1"
    assert {name: (row["n_users"], row["difference"]) for name, row in rows.items()} == {"all": (400, 0.0), "even": (200, -0.5), "odd": (200, 0.5)}
    assert [row["slice"] for row in found["alarms"]] == ["even"]
    assert rows["even"]["p_holm"] == 2 * rows["even"]["p"]  # the smallest of two slices, tied with that of the odd users
    assert rows["all"]["p_holm"] == rows["all"]["p"]  # what is asked first is no slice
    assert alarm_lines(found, "own") == ["negative transfer: 'moved' is below 'own' on ndcg@1: even -0.5000"]


def test_a_user_or_two_raise_no_alarm() -> None:
    """All resamples of one user are that user, which is no certainty of others."""
    worse = np.zeros(N)
    worse[:2] = 3
    masks = {"all": np.ones(N, dtype=bool), "one": np.arange(N) == 0, "two": np.arange(N) < 2}
    systems = [replace(system(key, places), masks=masks) for key, places in (("own", np.zeros(N)), ("moved", worse))]
    found = transfer([systems[1]], systems[0], 500)
    assert {row["slice"]: row["difference"] for row in found["rows"]}["one"] < -0.4
    assert found["alarms"] == []


def test_equal_systems_give_no_alarm() -> None:
    own = system("own", np.arange(N) % 7)
    found = transfer([system("twin", np.arange(N) % 7)], own, 200)
    assert found["alarms"] == []
    assert alarm_lines(found, "own") == []
