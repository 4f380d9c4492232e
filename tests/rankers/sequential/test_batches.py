from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from sequences import purchases

from recmerge.rankers.sequential import batches
from recmerge.rankers.sequential.batches import Batch, Rows, history_batches, like_lengths, read_alike
from recmerge.rankers.sequential.purchases import Asked

CPU = torch.device("cpu")
SHOP = purchases([1, 2, 3, 4], [5], [6, 7])


def rows(max_history: int = 50, *, every_place: bool = True) -> Rows:
    return Rows(SHOP, max_history, every_place=every_place, device=CPU)


def all_of(made: Rows) -> Batch:
    return made.batch(np.arange(len(made)))


def test_sequences_by_hand() -> None:
    found = all_of(rows())
    assert found.users.tolist() == [1, 3]  # the second bought once: nothing to ask
    assert found.items.tolist() == [[1, 2, 3], [0, 0, 6]]
    assert found.targets.tolist() == [[2, 3, 4], [0, 0, 7]]
    assert found.times.tolist() == [[0, 100, 200, 300], [-1, -1, 500, 600]]
    assert found.whole().tolist() == [[1, 2, 3, 4], [0, 0, 6, 7]]


def test_prefixes_by_hand() -> None:
    found = all_of(rows(every_place=False))
    assert found.users.tolist() == [1, 1, 1, 3]
    assert found.items.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [0, 0, 6]]
    assert found.targets.tolist() == [[0, 0, 2], [0, 0, 3], [0, 0, 4], [0, 0, 7]]
    assert found.times.tolist() == [[-1, -1, 0, 100], [-1, 0, 100, 200], [0, 100, 200, 300], [-1, -1, 500, 600]]


@pytest.mark.parametrize(("every_place", "items"), [(True, [[0, 1], [2, 3], [0, 6]]), (False, [[0, 1], [1, 2], [2, 3], [0, 6]])])
def test_more_purchases_than_are_read_are_several_rows(every_place: bool, items: list[list[int]]) -> None:
    found = all_of(rows(2, every_place=every_place))
    assert found.items.tolist() == items
    assert found.targets[:, -1].tolist() == ([2, 4, 7] if every_place else [2, 3, 4, 7])
    assert found.users.tolist() == ([1, 1, 3] if every_place else [1, 1, 1, 3])


@pytest.mark.parametrize("max_history", [1, 3, 4, 50])
@pytest.mark.parametrize("every_place", [True, False])
def test_every_purchase_but_the_first_is_asked_for_once(every_place: bool, max_history: int) -> None:
    draw = np.random.default_rng(3)
    lengths = draw.integers(0, 20, 50)
    edges = np.concatenate([[0], lengths.cumsum()])
    histories = [list(range(start + 1, end + 1)) for start, end in pairwise(edges)]  # no item twice
    made = Rows(purchases(*histories), max_history, every_place=every_place, device=CPU)
    targets = all_of(made).targets
    assert sorted(targets[targets > 0].tolist()) == [item for history in histories for item in history[1:]]
    assert max(made.ends - made.starts) <= max_history + 1


def test_a_batch_is_as_wide_as_its_longest_row() -> None:
    assert rows(every_place=False).batch(np.asarray([0, 3])).items.tolist() == [[1], [6]]


@pytest.mark.parametrize("every_place", [True, False])
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_every_row_once_an_epoch(every_place: bool, size: int) -> None:
    draw = np.random.default_rng(1)
    histories = [draw.integers(1, 10, draw.integers(0, 12)).tolist() for _ in range(200)]
    made = Rows(purchases(*histories), 5, every_place=every_place, device=CPU)
    batches = [batch for step in made.steps(size, draw, 1) for batch in step]
    found = [(int(u), tuple(t for t in whole.tolist() if t)) for b in batches for u, whole in zip(b.users, b.whole(), strict=True)]
    if every_place:
        wanted = [(u, tuple(h[max(0, end - 6) : end])) for u, h in enumerate(histories, start=1) for end in range(len(h), 1, -5)]
    else:
        wanted = [(u, tuple(h[max(0, end - 6) : end])) for u, h in enumerate(histories, start=1) for end in range(2, len(h) + 1)]
    assert sorted(found) == sorted(wanted)


def test_a_step_is_drawn_from_all_rows_and_read_by_length() -> None:
    made = Rows(purchases(*[[1] * length for length in range(2, 34)]), 50, every_place=True, device=CPU)

    def drawn(seed: int) -> list[list[list[int]]]:
        return [[b.users.tolist() for b in step] for step in made.steps(8, np.random.default_rng(seed), 2)]

    first, second = drawn(1), drawn(2)
    for step in first:
        users = [user for part in step for user in part]  # buyer n has n + 1 purchases
        assert users == sorted(users)
        assert max(users) - min(users) > 12  # of 32 buyers; 8 of like length would be 7 apart
    assert first != second
    assert first == drawn(1)


def test_a_step_in_one_batch() -> None:
    made = Rows(purchases(*[[1] * length for length in (2, 50, 3)] * 100), 50, every_place=True, device=CPU)
    assert [[len(b.users) for b in step] for step in made.steps(200, np.random.default_rng(0), None)] == [[200], [100]]


@pytest.mark.parametrize("fewest", [1, 40])
def test_like_lengths_are_the_best_of_all_cuts(fewest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_PART", 30)
    draw = np.random.default_rng(4)
    lengths = np.sort(draw.choice([1, 2, 3, 5, 8, 13, 21], size=100, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05]))

    def cost(begins: tuple[int, ...]) -> float:
        parts = np.split(lengths, begins)
        return sum(len(part) * part[-1] + 30 for part in parts) if min(map(len, parts)) >= fewest else np.inf

    edges = np.flatnonzero(np.diff(lengths)) + 1
    every = [cut for n in range(len(edges) + 1) for cut in combinations(edges.tolist(), n)]
    found = like_lengths(lengths, fewest)
    assert cost(tuple(found)) == min(map(cost, every))
    assert len(found) > 0


def test_rows_of_like_length_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_PART", 1)
    asked: list[tuple[list[int], int]] = []

    def read(rows: torch.Tensor, longest: int) -> torch.Tensor:
        asked.append((rows.tolist(), longest))
        return 10 * rows[:, None]

    read_alike(torch.tensor([5, 1, 5, 2, 1]), read)
    assert asked == [([1, 4], 1), ([3], 2), ([0, 2], 5)]
    asked.clear()
    assert read_alike(torch.tensor([5, 2, 5, 0, 2]), read).tolist() == [[0], [10], [20], [30], [40]]
    assert asked == [([3], 1), ([1, 4], 2), ([0, 2], 5)]
    asked.clear()
    assert read_alike(torch.tensor([3]), read).tolist() == [[0]]
    assert asked == [([0], 3)]


def test_no_batch_has_too_few_rows() -> None:
    assert like_lengths(np.asarray([1] * 30 + [50] * 200), 64) == []
    assert like_lengths(np.asarray([1] * 64 + [50] * 200), 64) == [64]


def test_too_few_rows_are_one_batch() -> None:
    assert like_lengths(np.asarray([1, 2, 500]), 4) == []
    assert like_lengths(np.asarray([7])) == []


def test_nothing_to_learn_from() -> None:
    made = Rows(purchases([1], [], n_items=1), 5, every_place=True, device=CPU)
    assert len(made) == 0
    assert list(made.steps(4, np.random.default_rng(0), 1)) == []


def test_histories_that_are_asked() -> None:
    asked = Asked(np.asarray([4, 0, 5]), np.asarray([0, 3, 3, 4]), np.asarray([1, 2, 3, 8]), np.zeros((3, 2), np.int64), np.zeros(3, np.int64))
    (alone, one), (longer, two) = history_batches(asked, 2, 1, CPU)
    assert (alone.tolist(), one.users.tolist(), one.items.tolist()) == ([2], [5], [[8]])  # user 0 of the list has no history
    assert (longer.tolist(), two.users.tolist(), two.items.tolist()) == ([0], [4], [[2, 3]])
    ((both, together),) = history_batches(asked, 50, 8, CPU)
    assert both.tolist() == [2, 0]
    assert together.items.tolist() == [[0, 0, 8], [1, 2, 3]]
    assert not together.targets.any()
    assert (together.times == -1).all()
    assert together.times.shape == (2, 4)
