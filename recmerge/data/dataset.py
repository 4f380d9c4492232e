"""A built domain and the sets made of domains: frames in memory, Parquet files on disk."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmerge.data.draws import text_key, text_keys
from recmerge.data.splitting import Cuts
from recmerge.errors import ArtifactError, ResourceError
from recmerge.names import (
    CANDIDATES,
    CANDIDATES_FILE,
    EVENTS_FILE,
    ITEM_ID,
    ITEMS_FILE,
    POSITION,
    ROWS_FILE,
    SPLIT,
    TARGET,
    TEST,
    TITLE,
    TRAIN,
    USER_ID,
    USERS_FILE,
    VALID,
)

DOMAIN_FILE = "domain.json"
ANSWER = "answer"
DOMAIN_FILES = (DOMAIN_FILE, ITEMS_FILE, EVENTS_FILE, USERS_FILE, ROWS_FILE, CANDIDATES_FILE)
_FORMAT = 1
_DISK_FULL = "(os error 28)"  # how polars tells it
_REBUILD = "delete that version's folder and run its command again"


@dataclass(frozen=True)
class Domain:
    """One domain, filtered, ordered, split, its candidates fixed.

    Args:
        name: The domain's name.
        profile: "clean" or "published".
        items: item_id, title, brand, category ("" where unknown), by item_id.
        events: user_id, item_id, timestamp (null where unknown), position (0-based), split; by user_id, position.
        users: user_id, n_events, tied (the test target shares its timestamp with an event beside it), by user_id.
        rows: Training rows in their seeded order: user_id, position (of the predicted event), target, candidates
            (C item ids, the target among them); published also: answer (5 item ids, the target first).
        candidates: split (valid or test), user_id, target, candidates (C item ids).
        cuts: Where a global time split divides the events; None: each user's last is test, the last but one validation.
    """

    name: str
    profile: str
    items: pl.DataFrame
    events: pl.DataFrame
    users: pl.DataFrame
    rows: pl.DataFrame
    candidates: pl.DataFrame
    cuts: Cuts | None = None

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of every item."""
        return dict(zip(self.items[ITEM_ID], self.items[TITLE], strict=True))

    @cached_property
    def sequences(self) -> dict[str, tuple[str, ...]]:
        """Every user's whole sequence of item ids, oldest first, validation and test included."""
        grouped = self.events.group_by(USER_ID, maintain_order=True).agg(pl.col(ITEM_ID))
        return {user: tuple(sequence) for user, sequence in grouped.iter_rows()}


@dataclass(frozen=True)
class Example:
    """One ranking question.

    Args:
        domain: Where it is from.
        user_id: Who is asked for.
        history: All item ids before the target, oldest first.
        target: The item id that came next.
        candidates: C item ids, the target among them.
    """

    domain: str
    user_id: str
    history: tuple[str, ...]
    target: str
    candidates: tuple[str, ...]


def write_domain(folder: Path, domain: Domain) -> None:
    """Write a domain's files; equal domains give equal bytes.

    Args:
        folder: An existing folder.
        domain: What to write.
    """
    head: dict[str, Any] = {"format": _FORMAT, "name": domain.name, "profile": domain.profile}
    if domain.cuts is not None:
        head["cuts"] = asdict(domain.cuts)
    (folder / DOMAIN_FILE).write_text(json.dumps(head, indent=2) + "\n", encoding="utf-8")
    write_frame(folder / ITEMS_FILE, domain.items)
    write_frame(folder / EVENTS_FILE, domain.events)
    write_frame(folder / USERS_FILE, domain.users)
    write_frame(folder / ROWS_FILE, domain.rows)
    write_frame(folder / CANDIDATES_FILE, domain.candidates)


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Write a Parquet file whose bytes depend on the frame alone, not on how it lies in memory.

    Args:
        path: The file.
        frame: What to write.

    Raises:
        ResourceError: The disk is full; nothing of the file is left.
    """
    try:
        _write_parquet(path, frame)
    except (OSError, pl.exceptions.PolarsError) as error:
        if _DISK_FULL not in str(error):
            raise
        needed = io.BytesIO()
        _write_parquet(needed, frame)
        if path.is_file():
            path.unlink()
        free = shutil.disk_usage(path.parent).free
        raise ResourceError(
            f"the disk is full: {path} needs {needed.tell():,} bytes, {free:,} are free", fix="free some space or choose another --workspace, and run it again"
        ) from error


def _write_parquet(place: Path | io.BytesIO, frame: pl.DataFrame) -> None:
    frame.rechunk().write_parquet(place, compression="zstd", compression_level=3, row_group_size=65_536, statistics=False)


def read_domain(folder: Path, name: str | None = None) -> Domain:
    """Read a built domain.

    Args:
        folder: Its version folder.
        name: What to call it; by default the name it was built under.

    Returns:
        The domain.

    Raises:
        ArtifactError: A file is missing, cannot be read, or is of another format.
    """
    path = folder / DOMAIN_FILE
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
        form, built, profile = head["format"], head["name"], head["profile"]
        cuts = Cuts(int(head["cuts"]["valid"]), int(head["cuts"]["test"])) if "cuts" in head else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix=_REBUILD) from error
    if form != _FORMAT:
        raise ArtifactError(f"{path} has format {form}, this recmerge reads format {_FORMAT}", fix="build the domain again")
    return Domain(
        name=name or built,
        profile=profile,
        items=read_frame(folder / ITEMS_FILE),
        events=read_frame(folder / EVENTS_FILE),
        users=read_frame(folder / USERS_FILE),
        rows=read_frame(folder / ROWS_FILE),
        candidates=read_frame(folder / CANDIDATES_FILE),
        cuts=cuts,
    )


def read_frame(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Read a Parquet file of a run.

    Args:
        path: The file.
        columns: Those to read; None: all.

    Returns:
        Its content.

    Raises:
        ArtifactError: It is missing or cannot be read.
    """
    try:
        return pl.read_parquet(path, columns=columns, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix=_REBUILD) from error


def user_order(user_ids: Iterable[str], seed: int) -> list[str]:
    """Return users in a seeded order that does not depend on the order given.

    Args:
        user_ids: Distinct user ids.
        seed: Another seed, another order.

    Returns:
        The same users; the first N of them are a fair sample.
    """
    users = sorted(user_ids)
    keys = text_keys(users, text_key("users", seed))
    return [users[i] for i in np.argsort(keys, kind="stable")]


def examples(domain: Domain, split: str, n_users: int | None = None, seed: int = 42) -> list[Example]:
    """Return one ranking question per user; under a time split, of those who have a target in that split.

    Args:
        domain: Where from.
        split: "valid" (history: all before the validation event) or "test" (all before the test event).
        n_users: At most this many users, the first of a seeded order; None: all.
        seed: Of that order.

    Returns:
        By user_id.

    Raises:
        ValueError: `split` is neither.
    """
    if split not in {VALID, TEST}:
        raise ValueError(f"split '{split}' is neither valid nor test")
    asked = domain.candidates.filter(pl.col(SPLIT) == split)
    if n_users is not None:
        asked = asked.filter(pl.col(USER_ID).is_in(user_order(asked[USER_ID], seed)[:n_users]))
    places = dict(domain.events.filter(pl.col(SPLIT) == split).select(USER_ID, POSITION).iter_rows())
    found = []
    for user, target, listed in asked.sort(USER_ID).select(USER_ID, TARGET, CANDIDATES).iter_rows():
        history = domain.sequences[user][: places[user]]
        found.append(Example(domain.name, user, history, target, tuple(listed)))
    return found


def candidates_sha256(examples: Iterable[Example]) -> str:
    """Return one hash over who is asked what; equal hashes mean comparable results.

    Args:
        examples: In any order; the order of candidates within one does not matter either.

    Returns:
        sha256 as hex, over one JSON line `[user, target, [candidates, sorted]]` per example, sorted.
    """
    lines = sorted(json.dumps([e.user_id, e.target, sorted(e.candidates)], ensure_ascii=True) for e in examples)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def training_events(domain: Domain) -> pl.DataFrame:
    """Return the events a model may learn from: user_id, item_id, position."""
    return domain.events.filter(pl.col(SPLIT) == TRAIN).select(USER_ID, ITEM_ID, POSITION)
