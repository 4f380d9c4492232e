"""Rankings made by hand, as `infer` would have written them."""

from pathlib import Path

import numpy as np
import polars as pl

from recmerge.evaluation.ranks import candidate_sha256
from recmerge.runs import RunSpec, Workspace, open_run

N_CANDIDATES = 6


def rank(workspace: Workspace, name: str, split: str, *, weight: float, n_users: int = 60, kept: int | None = None, seed: int = 0, **config: object) -> Path:
    """Rankings in which a system knows its share of what decides the purchase: the user buys where two hidden values sum highest."""
    rng = np.random.default_rng([len(split), n_users])
    hidden = rng.normal(size=(n_users, N_CANDIDATES, 2))
    target = hidden.sum(-1).argmax(1)
    scores = hidden @ np.array([weight, 1 - weight]) + 0.2 * np.random.default_rng([seed, len(name)]).normal(size=(n_users, N_CANDIDATES))
    rows = [(f"u{u:03d}", f"i{c}", float(scores[u, c]), 1, c == target[u]) for u in range(kept or n_users) for c in range(N_CANDIDATES)]
    schema = {"user_id": pl.String, "item_id": pl.String, "score": pl.Float64, "rank": pl.Int32, "is_target": pl.Boolean}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    settings = {"ranker": name.partition("-")[2], "adapter": None, "split": split, "users": n_users, "seed": 42} | config
    with open_run(workspace, RunSpec("infer", name + ("-valid" if split == "valid" else ""), settings, (), "test")) as run:
        frame.write_parquet(run.path / "rankings.parquet")
        run.facts |= {"kind": "rankings", "domains": ["sports"], "mode": "score", "split": split, "n_users": n_users, "label": name}
        run.facts |= {"candidates": {"n": N_CANDIDATES, "sha256": candidate_sha256(frame)}, "malformed": 0, "off_list": 0}
    return run.path
