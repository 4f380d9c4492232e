"""Mix the training rows of several domains into one set."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from recmerge.data.candidates import row_keys
from recmerge.data.dataset import Domain
from recmerge.data.leakage import held_out_elsewhere
from recmerge.data.splitting import Cuts, moment
from recmerge.errors import DataError, UsageError
from recmerge.names import DOMAIN, TARGET, USER_ID

DEFAULT_CAP = 40_000


def mix_rows(domains: Sequence[Domain], caps: Mapping[str, int], seed: int, dropped: dict[str, int] | None = None) -> pl.DataFrame:
    """Take rows of every domain and shuffle them together.

    Source: WeaveRec's published traindata/combine.py: up to 40,000 rows of target and source each.
    Departures: the rows of a domain are the first of its own seeded order, so every set that holds a domain and caps it alike holds the
    same rows; the shuffle is seeded and does not depend on the order in which domains are named. Rows that predict a purchase which
    another domain of the set holds out are left out (clean profile), so the set teaches no answer to a question of its own.

    Args:
        domains: With different names, one profile and one split.
        caps: Most rows of each domain, by name.
        seed: Of the shuffle.
        dropped: Receives by domain the rows left out for what another domain holds out.

    Returns:
        domain and the columns of `Domain.rows`, in training order.

    Raises:
        UsageError: Fewer than two domains, or one twice.
        DataError: They are of different profiles or splits.
    """
    ordered = sorted(domains, key=lambda d: d.name)
    names = [d.name for d in ordered]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"a mix needs two or more different domains, not {', '.join(names)}", fix="name different domains")
    profiles = {d.name: d.profile for d in ordered}
    if len(set(profiles.values())) > 1:
        shown = ", ".join(f"{name} is {profile}" for name, profile in profiles.items())
        raise DataError(f"domains of different profiles cannot be mixed: {shown}", fix="build them with one --profile")
    refuse_other_cuts({d.name: d.cuts for d in ordered})
    by_name = {d.name: d for d in ordered}
    parts, keys = [], []
    for domain in ordered:
        rows = domain.rows
        if domain.profile != "published":
            rows = rows.join(held_out_elsewhere(domain.name, by_name), on=[USER_ID, TARGET], how="anti", maintain_order="left")
        if dropped is not None:
            dropped[domain.name] = domain.rows.height - rows.height
        rows = rows.head(caps[domain.name])
        parts.append(rows.select(pl.lit(domain.name).alias(DOMAIN), pl.all()))
        keys.append(row_keys(domain.name, "mix", rows, seed))
    # lexsort is stable, and the parts come in one order: equal keys cannot make a difference
    return pl.concat(parts)[np.lexsort((np.concatenate(keys),))]


def refuse_other_cuts(cuts: Mapping[str, Cuts | None]) -> None:
    """Refuse domains that are not split at the same points in time, or not all by time.

    What one is trained on would lie behind another's cut, and a model of both would know the future.

    Args:
        cuts: By domain; None: leave-one-out.

    Raises:
        DataError: They differ; the line names cuts that all could be built with.
    """
    if len(set(cuts.values())) < 2:
        return
    shown = ", ".join(f"{name} is split {'by leave_one_out' if c is None else f'at {c}'}" for name, c in cuts.items())
    known = [c for c in cuts.values() if c is not None]
    valid, test = (_setting(min(getattr(c, key) for c in known)) for key in ("valid", "test"))
    raise DataError(
        f"domains that are not split at the same times cannot be mixed, one would teach the other's future: {shown}",
        fix=f"build each with --split time --set valid_from={valid} --set test_from={test}",
    )


def _setting(seconds: int) -> str:
    return moment(seconds) if seconds % 86_400 == 0 else str(seconds)
