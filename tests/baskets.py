"""Small domains for tests of rankers: users and what they bought, one letter an item."""

from collections.abc import Mapping

import polars as pl

from recmerge.data.dataset import Domain, Example
from recmerge.rankers import Ranker

# a: 3 buyers, b: 2, c: 2, d: 1; together: ab 2, ac 1, bc 1, cd 1
BASKETS = {"u1": "abc", "u2": "ab", "u3": "a", "u4": "cd"}

_EVENTS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "position": pl.Int32, "split": pl.String}


def basket_domain(baskets: Mapping[str, str] = BASKETS, name: str = "sports") -> Domain:
    """Users' training events in order; then everybody's validation event is y and test event z."""
    events = [
        (user, item, None, place, split)
        for user, bought in baskets.items()
        for place, (item, split) in enumerate(zip([*bought, "y", "z"], ["train"] * len(bought) + ["valid", "test"], strict=True))
    ]
    empty = pl.DataFrame()
    return Domain(name, "clean", empty, pl.DataFrame(events, schema=_EVENTS, orient="row"), empty, empty, empty)


def scores(ranker: Ranker, history: str, candidates: str, domain: str = "sports", user: str = "u") -> list[float]:
    """What a fitted ranker says of some items after a history."""
    return ranker.score([Example(domain, user, tuple(history), candidates[0], tuple(candidates))])[0].tolist()
