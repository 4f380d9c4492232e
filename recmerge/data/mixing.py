"""Mix the training rows of several domains into one set."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from recmerge.data.candidates import row_keys
from recmerge.data.dataset import Domain
from recmerge.errors import DataError, UsageError
from recmerge.names import DOMAIN

DEFAULT_CAP = 40_000


def mix_rows(domains: Sequence[Domain], caps: Mapping[str, int], seed: int) -> pl.DataFrame:
    """Take rows of every domain and shuffle them together.

    Source: WeaveRec's published traindata/combine.py: up to 40,000 rows of target and source each.
    Departures: the rows of a domain are the first of its own seeded order, so every set that holds a domain and caps it alike holds the
    same rows; the shuffle is seeded and does not depend on the order in which domains are named.

    Args:
        domains: With different names and one profile.
        caps: Most rows of each domain, by name.
        seed: Of the shuffle.

    Returns:
        domain and the columns of `Domain.rows`, in training order.

    Raises:
        UsageError: Fewer than two domains, or one twice.
        DataError: They are of different profiles.
    """
    ordered = sorted(domains, key=lambda d: d.name)
    names = [d.name for d in ordered]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"a mix needs two or more different domains, not {', '.join(names)}", fix="name different domains")
    profiles = {d.name: d.profile for d in ordered}
    if len(set(profiles.values())) > 1:
        shown = ", ".join(f"{name} is {profile}" for name, profile in profiles.items())
        raise DataError(f"domains of different profiles cannot be mixed: {shown}", fix="build them with one --profile")
    parts, keys = [], []
    for domain in ordered:
        rows = domain.rows.head(caps[domain.name])
        parts.append(rows.select(pl.lit(domain.name).alias(DOMAIN), pl.all()))
        keys.append(row_keys(domain.name, "mix", rows, seed))
    # lexsort is stable, and the parts come in one order: equal keys cannot make a difference
    return pl.concat(parts)[np.lexsort((np.concatenate(keys),))]
