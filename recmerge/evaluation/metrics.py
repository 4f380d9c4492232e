"""Metrics of one relevant item, as expected values over every order of tied candidates."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# The gain of a target at each 1-based rank: (ranks (R,), cut-off) -> (R,).
_GAINS: dict[str, Callable[[Floats, float], Floats]] = {
    "ndcg": lambda rank, k: np.where(rank <= k, 1 / np.log2(rank + 1), 0.0),
    "mrr": lambda rank, k: np.where(rank <= k, 1 / rank, 0.0),
    "hr": lambda rank, k: np.where(rank <= k, 1.0, 0.0),
}


WHOLE_LIST = ("auc", "mean_rank")  # need to know how many candidates there were
MEAN_RANK = "mean_rank"  # the one metric of which less is better


def mean_places(scores: npt.ArrayLike) -> Floats:
    """Return the 1-based place of each candidate in its list, of tied ones the middle of theirs: the mean over all orders of the ties.

    Args:
        scores: (..., C), higher is better; no NaN.

    Returns:
        (..., C) from 1 to C.

    >>> mean_places([0.1, 0.7, 0.7, 0.2]).tolist()
    [4.0, 1.5, 1.5, 3.0]
    """
    falling = -np.asarray(scores, dtype=np.float64)
    order = np.argsort(falling, axis=-1, kind="stable")
    inorder = np.take_along_axis(falling, order, -1)
    place = np.broadcast_to(np.arange(falling.shape[-1]), falling.shape)
    is_other = inorder[..., 1:] != inorder[..., :-1]  # than the one before
    edge = np.ones((*falling.shape[:-1], 1), dtype=np.bool_)
    first = np.maximum.accumulate(np.where(np.concatenate([edge, is_other], -1), place, 0), -1)
    ends = np.where(np.concatenate([is_other, edge], -1), place, falling.shape[-1])
    last = np.flip(np.minimum.accumulate(np.flip(ends, -1), -1), -1)
    places = np.empty_like(falling)
    np.put_along_axis(places, order, (first + last) / 2 + 1, -1)
    return places


def metric_names(ks: Sequence[int], *, whole_list: bool = False) -> list[str]:
    """Return the metrics reported for some cut-offs, in the order of the tables.

    NDCG@1, MRR@1 and HR@1 are the same figure: beside longer cut-offs it is named once.

    Args:
        ks: Cut-offs, each 1 or more.
        whole_list: With those of `whole_list_metrics`.

    Returns:
        Names as in `metrics.json`.

    >>> metric_names([1, 3, 5])
    ['ndcg@1', 'ndcg@3', 'ndcg@5', 'mrr@3', 'mrr@5', 'hr@3', 'hr@5', 'mrr']
    """
    cuts = sorted(set(ks))
    longer = [k for k in cuts if k > 1] or cuts
    return [*(f"ndcg@{k}" for k in cuts), *(f"{name}@{k}" for name in ("mrr", "hr") for k in longer), "mrr", *(WHOLE_LIST if whole_list else ())]


def expected_metric(name: str, n_better: npt.ArrayLike, n_tied: npt.ArrayLike) -> Floats:
    """Return a metric per user, averaged over every order of the candidates tied with the target.

    With b candidates better and t tied, the target is equally likely to stand at rank b+1, ..., b+t+1, so the
    expected gain is the mean gain of those ranks. The gain at rank r is 1/log2(r+1) for ndcg@k (one relevant item:
    the ideal gain is 1), 1/r for mrr and mrr@k, 1 for hr@k, and 0 beyond k.

    Args:
        name: "ndcg@k", "mrr@k", "hr@k" or "mrr" (over the whole list).
        n_better: (U,) candidates better than the target; inf where the target was not ranked.
        n_tied: (U,) other candidates tied with the target.

    Returns:
        (U,) from 0 to 1; 0 for a miss.

    Raises:
        ValueError: There is no such metric.

    A clear first place, a second place, and a first place shared by two:

    >>> expected_metric("mrr", [0, 1, 0], [0, 0, 1]).tolist()
    [1.0, 0.5, 0.75]
    >>> expected_metric("hr@1", [0, 1, 0], [0, 0, 1]).tolist()
    [1.0, 0.0, 0.5]

    A target that was not ranked:

    >>> expected_metric("mrr", [float("inf")], [0]).tolist()
    [0.0]
    """
    kind, at, cut = name.partition("@")
    if kind not in _GAINS or (at and not (cut.isdigit() and int(cut) > 0)) or (not at and kind != "mrr"):
        raise ValueError(f"unknown metric '{name}'; known: ndcg@k, mrr@k, hr@k, mrr")
    better, tied = np.asarray(n_better, dtype=np.float64), np.asarray(n_tied, dtype=np.int64)
    ranked = np.isfinite(better)
    first = np.where(ranked, better, 0).astype(np.int64)
    last = first + np.where(ranked, tied, 0)
    gain = _GAINS[kind](np.arange(1, int(last.max(initial=0)) + 2, dtype=np.float64), int(cut) if at else np.inf)
    total = np.concatenate([[0.0], np.cumsum(gain)])
    mean = (total[last + 1] - total[first]) / (last - first + 1)
    exact = np.where(last == first, gain[first], mean)  # differences of sums would blur an untied gain
    return np.where(ranked, exact, 0.0)


def whole_list_metrics(n_better: npt.ArrayLike, n_tied: npt.ArrayLike, n_candidates: npt.ArrayLike) -> dict[str, Floats]:
    """Return where the target stands in its whole list, expected over every order of ties.

    Args:
        n_better: (U,) candidates better than the target; inf for a miss, which counts as the last place.
        n_tied: (U,) other candidates tied with the target.
        n_candidates: (U,) candidates, the target among them.

    Returns:
        (U,) `auc`, the share of the other candidates that stand below the target, ties counting half, from 0 to 1 (1 where there is no
        other); `mean_rank`, the 1-based place, less is better.

    The second of three, and all three tied:

    >>> found = whole_list_metrics([1, 0], [0, 2], [3, 3])
    >>> found["auc"].tolist(), found["mean_rank"].tolist()
    ([0.5, 0.5], [2.0, 2.0])
    """
    others = np.asarray(n_candidates, dtype=np.float64) - 1
    above = np.minimum(np.asarray(n_better, dtype=np.float64) + np.asarray(n_tied, dtype=np.float64) / 2, others)
    return {"auc": 1 - above / np.maximum(others, 1), MEAN_RANK: above + 1}


def per_user(n_better: npt.ArrayLike, n_tied: npt.ArrayLike, ks: Sequence[int], n_candidates: npt.ArrayLike | None = None) -> dict[str, Floats]:
    """Return every reported metric per user; see `expected_metric` and `whole_list_metrics`.

    Args:
        n_better: (U,) candidates better than the target; inf for a miss.
        n_tied: (U,) other candidates tied with the target.
        ks: Cut-offs.
        n_candidates: (U,) candidates, the target among them; None: unknown, and without the metrics of whole lists.

    Returns:
        (U,) by metric name.
    """
    found = {name: expected_metric(name, n_better, n_tied) for name in metric_names(ks)}
    return found if n_candidates is None else found | whole_list_metrics(n_better, n_tied, n_candidates)


def chance(n_candidates: npt.ArrayLike, ks: Sequence[int]) -> dict[str, float]:
    """Return what each metric is worth when candidates are put in random order.

    Args:
        n_candidates: (U,) candidates per user, the target among them.
        ks: Cut-offs.

    Returns:
        The mean over users by metric name.

    >>> chance([4], [1])["ndcg@1"]
    0.25
    """
    tied = np.asarray(n_candidates, dtype=np.int64) - 1
    return {name: float(values.mean()) for name, values in per_user(np.zeros(tied.shape), tied, ks, n_candidates).items()}


def hit_curve(n_better: npt.ArrayLike, n_tied: npt.ArrayLike, length: int) -> list[float]:
    """Return the hit rate at every cut-off from 1 to `length`, the whole distribution of target ranks in one line.

    Args:
        n_better: (U,) candidates better than the target; inf for a miss.
        n_tied: (U,) other candidates tied with the target.
        length: The last cut-off.

    Returns:
        `length` values from 0 to 1, never falling.
    """
    return [float(expected_metric(f"hr@{k}", n_better, n_tied).mean()) for k in range(1, length + 1)]
