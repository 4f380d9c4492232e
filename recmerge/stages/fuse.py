"""`eval --fuse`: several rankings made into one, fitted on the validation rankings of the same systems."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmerge.data.dataset import read_frame
from recmerge.errors import ArtifactError, UsageError
from recmerge.evaluation.fusion.features import Array
from recmerge.evaluation.fusion.fitting import MIN_USERS, Model, fit_fusion
from recmerge.evaluation.ranks import target_ranks
from recmerge.evaluation.summary import Evaluated
from recmerge.names import FUSED_FILE, IS_TARGET, ITEM_ID, RANK, RANKINGS_FILE, SCORE, TEST, USER_ID, VALID
from recmerge.runs.manifest import Manifest
from recmerge.runs.resolve import Found, list_runs, resolve
from recmerge.runs.workspace import Workspace

FUSED = "fused"
NO_MODELS = "any language model"  # of "fused without ...", where there are several
_WHO_IS_ASKED = frozenset({"split", "users", "seed"})  # a system's settings apart from these and from what changes no score are its own
_NO_SCORE = frozenset({"device", "batch_size", "adapter", "base", "revision"})


def find_parts(workspace: Workspace, refs: Sequence[str], asked: Sequence[Found]) -> list[Found]:
    """Find the rankings to fuse, see `find_part`; names may be short where runs of one domain are evaluated beside them."""
    domains = {d for f in asked for d in f.manifest.facts.get("domains", [])}
    parts = [find_part(workspace, ref, next(iter(domains)) if len(domains) == 1 else None) for ref in refs]
    if len({p.path.resolve() for p in parts}) < len(parts):
        raise UsageError(f"--fuse names one run twice: {', '.join(refs)}", fix="name each once")
    return parts


def find_part(workspace: Workspace, ref: str, domain: str | None) -> Found:
    """Find a ranking to fuse.

    Args:
        workspace: Where runs live.
        ref: An infer run, or the end of its name behind the domain's: `tfidf` for `sports-tfidf`.
        domain: That domain; None: take `ref` as it is.

    Returns:
        The run.

    Raises:
        ArtifactError: There is none.
        UsageError: It ranks validation events.
    """
    hint = f"recmerge infer {domain or 'DOMAIN'} --ranker {ref}, or --adapter ADAPTER"
    try:
        found = resolve(workspace, ref, ["infer"], kind="ranking run", hint=hint)
    except ArtifactError:
        if domain is None:
            raise
        found = resolve(workspace, f"{domain}-{ref}", ["infer"], kind="ranking run", hint=hint)
    if found.manifest.facts.get("split", TEST) != TEST:
        raise UsageError(f"--fuse: '{found.manifest.name}' ranks validation events", fix="name the run that ranks the test events; its twin is found by itself")
    return found


def find_twins(workspace: Workspace, parts: Sequence[Found], named: Sequence[str]) -> list[Found]:
    """Find the rankings of validation events that a fusion is fitted on.

    Args:
        workspace: Where runs live.
        parts: Rankings of test events.
        named: Infer runs, one for each part in their order; empty: the largest of each, see `find_twin`.

    Returns:
        One for each part.

    Raises:
        ArtifactError: There is none.
        UsageError: A named one does not rank validation events, or not by the system of its part.
    """
    if not named:
        return [find_twin(workspace, part) for part in parts]
    twins = [resolve(workspace, ref, ["infer"], kind="ranking run", hint="recmerge infer DOMAIN --split valid") for ref in named]
    for part, twin in zip(parts, twins, strict=True):
        if twin.manifest.facts.get("split") != VALID or _system(twin.manifest) != _system(part.manifest):
            what = f"--fit-on: '{twin.label}' is not the ranking of validation events by the system of '{part.label}'"
            raise UsageError(what, fix="name one run for each of --fuse, in its order, or leave --fit-on out")
    return twins


def find_twin(workspace: Workspace, found: Found) -> Found:
    """Find the run in which the same system ranks validation events.

    Args:
        workspace: Where runs live.
        found: A ranking of test events.

    Returns:
        Of the complete runs with the same inputs and settings but for whom they ask, that which asked most; of equals the newest.

    Raises:
        ArtifactError: There is none; the fix is the command that makes it.
    """
    wanted = _system(found.manifest)
    twins = [
        Found(path, manifest)
        for path, manifest, _ in list_runs(workspace, ["infer"])
        if manifest is not None and manifest.facts.get("split") == VALID and _system(manifest) == wanted
    ]
    if not twins:
        raise ArtifactError(
            f"'{found.manifest.name}' is to be fitted, which needs the same system's ranking of the validation events", fix=_command(found.manifest)
        )
    return max(twins, key=lambda t: (t.manifest.facts.get("n_users", 0), t.manifest.ended))


def _system(manifest: Manifest) -> tuple[object, ...]:
    config = {k: v for k, v in _settings(manifest).items() if k not in _WHO_IS_ASKED | _NO_SCORE}
    inputs = sorted((i["role"], i["content_sha256"]) for i in manifest.inputs)
    return config, inputs, manifest.config.get("seed") if manifest.config.get("ranker") == "random" else None


def _settings(manifest: Manifest) -> dict[str, Any]:
    """Return a run's settings, with the normalization that it chose in the place of `auto`."""
    config = dict(manifest.config)
    if config.get("normalize") == "auto":
        config["normalize"] = manifest.facts["normalization"]["chosen"]
    return {k: v for k, v in config.items() if (k, v) != ("normalize", "sum")}  # which older runs do not name


def _command(manifest: Manifest) -> str:
    config = _settings(manifest)
    how = f"--ranker {config['ranker']}" if config.get("ranker") else f"--adapter {config.get('adapter')}"
    asked = [f"--set {key}={config[key]}" for key in ("candidates", "order_seed", "normalize") if key in config]
    return " ".join([f"recmerge infer {manifest.facts.get('domains', ['DOMAIN'])[0]} {how}", *asked, f"--split valid --name {manifest.name}-valid"])


def fuse(parts: Sequence[tuple[str, Found, Found]], like: Evaluated, model: Model, seed: int, folder: Path) -> tuple[list[Evaluated], dict[str, Any]]:
    """Fuse systems, and once more without each language model among them, and write the rankings as `fused.parquet`.

    Args:
        parts: Key, test rankings and validation rankings of two systems or more.
        like: One of them, evaluated.
        model: Which fused model, see `fit_fusion`.
        seed: Of its folds and network.
        folder: Where to write: `run`, and the columns of an infer run's rankings.

    Returns:
        The evaluated fusions: of all, under the key "fused", then "fused without KEY" for every language model, and without all
        of several, where two parts or more remain; and by key what was fitted.

    Raises:
        ArtifactError: The parts were not asked about the same test users and candidates, or have too few validation users in common.
    """
    names = [name for name, _, _ in parts]
    twins = {n: twin.path for n, _, twin in parts}
    valid, test = _aligned(twins, _common_users(twins)), _aligned({n: found.path for n, found, _ in parts})
    if len(valid.target) < MIN_USERS:
        raise ArtifactError(f"fusion has {len(valid.target)} validation users, at least {MIN_USERS} are needed", fix="rank more with --set users=N")
    models = [name for name, found, _ in parts if not found.manifest.config.get("ranker")]
    left_out = {m: {m} for m in models} | ({NO_MODELS: set(models)} if len(models) > 1 else {})
    wholes = {FUSED: names} | {f"{FUSED} without {what}": [n for n in names if n not in gone] for what, gone in left_out.items() if len(names) > len(gone) + 1}
    results, fitted, rankings = [], {}, []
    for key, kept in wholes.items():
        columns = [names.index(n) for n in kept]
        fusion = fit_fusion(kept, valid.scores[:, :, columns], valid.target, model, seed)
        ranked = test.ranked(fusion.score(test.scores[:, :, columns]))
        about = {"run": {**like.about["run"], "label": key, "name": key, "version": "", "mode": "score"}}
        results.append(replace(like, key=key, label=key, ranks=target_ranks(ranked), malformed=0, off_list=0, about=about))
        fitted[key] = fusion.about()
        rankings.append(ranked.select(pl.lit(key).alias("run"), pl.all()))
    pl.concat(rankings).write_parquet(folder / FUSED_FILE, compression="zstd", statistics=False)
    return results, fitted


@dataclass(frozen=True)
class _Ballots:
    """What R rankers say of the C candidates of B users: `scores` (B, C, R), `target` (B,), and `frame`, their users and items in that order."""

    frame: pl.DataFrame
    scores: Array
    target: np.ndarray

    def ranked(self, scores: Array) -> pl.DataFrame:
        """Return rankings by scores (B, C)."""
        places = 1 + (scores[:, None, :] > scores[:, :, None]).sum(-1)
        return self.frame.with_columns(pl.Series(SCORE, scores.reshape(-1)), pl.Series(RANK, places.reshape(-1), dtype=pl.Int32)).select(
            USER_ID, ITEM_ID, SCORE, RANK, IS_TARGET
        )


def _common_users(rankings: dict[str, Path]) -> pl.DataFrame:
    """Find the users whom every ranker was asked about: a language model is costly to ask, and a fusion is fitted on few."""
    asked = (read_frame(path / RANKINGS_FILE, [USER_ID]).unique() for path in rankings.values())
    return reduce(lambda some, others: some.join(others, on=USER_ID, how="semi"), asked)


def _aligned(rankings: dict[str, Path], users: pl.DataFrame | None = None) -> _Ballots:
    """Read rankings of the same users and candidates side by side; of `users` only, where they are given."""
    first, frame = "", pl.DataFrame()
    columns: list[np.ndarray] = []
    for name, path in rankings.items():
        read = read_frame(path / RANKINGS_FILE)
        read = (read if users is None else read.join(users, on=USER_ID, how="semi")).sort(USER_ID, ITEM_ID)
        asked = read.select(USER_ID, ITEM_ID, IS_TARGET)
        if not columns:
            first, frame = name, asked
        elif not asked.equals(frame):
            raise ArtifactError(f"'{name}' and '{first}' rank different users or candidates", fix="rank both with the same data set, --split and --users")
        columns.append(read[SCORE].cast(pl.Float64).fill_null(float("nan")).to_numpy())
    sizes = frame.group_by(USER_ID).len()["len"].unique().sort().to_list() or [0]
    if len(sizes) != 1:
        raise ArtifactError(f"users have {sizes[0]} to {sizes[-1]} candidates; fusion needs equally many", fix="build the data set with profile clean")
    shape = (len(frame) // max(sizes[0], 1), sizes[0])
    target = frame[IS_TARGET].to_numpy().reshape(shape).argmax(1) if len(frame) else np.zeros(0, np.int64)
    return _Ballots(frame, np.stack(columns, -1).reshape(*shape, -1), target)
