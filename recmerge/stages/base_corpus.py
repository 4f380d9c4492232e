"""What `base pretrain` reads: catalogues, and the training events of built domains."""

import hashlib
from dataclasses import dataclass
from typing import Any

from recmerge.config.base import BaseConfig
from recmerge.data.dataset import read_domain, training_events
from recmerge.data.sources.table import read_catalogue
from recmerge.data.titles import clean_titles
from recmerge.errors import DataError
from recmerge.lm.shelves import CatalogueItem
from recmerge.names import BRAND, CATEGORY, ITEM_ID, TITLE, USER_ID, expand_path
from recmerge.runs.directory import Run
from recmerge.runs.manifest import read_manifest

BEHAVIOUR = "behaviour"  # role of a built domain whose buyers are read
_COLUMNS = {"item_id": "item_id", "title": "title", "brand": "brand", "category": "category"}


@dataclass(frozen=True)
class Corpus:
    """What there is to learn.

    Args:
        items: Titles that are learned.
        held_out: Titles of the catalogues that are not.
        histories: Buyers' training events, as indices into items, oldest first.
    """

    items: list[CatalogueItem]
    held_out: list[CatalogueItem]
    histories: list[list[int]]


def read_corpus(config: BaseConfig, run: Run) -> Corpus:
    """Read all that a base learns from.

    Args:
        config: Which catalogues, and what is held out.
        run: The run whose inputs name the built domains.

    Returns:
        The corpus; of behaviour, training events only.

    Raises:
        DataError: There is no title at all.
    """
    catalogue = _read_catalogues(config)
    items = [i for i in catalogue if not _held_out(i.title, config)]
    held_out = [i for i in catalogue if _held_out(i.title, config)]
    histories: list[list[int]] = []
    for role in (i.role for i in run.spec.inputs):
        kind, _, name = role.partition(":")
        if kind == BEHAVIOUR:
            domain = read_domain(run.input_path(role), name)
            place = {item: len(items) + n for n, item in enumerate(domain.items[ITEM_ID])}
            rows = domain.items.select(TITLE, BRAND, CATEGORY).iter_rows()
            items += [CatalogueItem(name, title, brand, category) for title, brand, category in rows]
            grouped = training_events(domain).group_by(USER_ID, maintain_order=True).agg(ITEM_ID)
            histories += [[place[i] for i in sequence] for sequence in grouped[ITEM_ID]]
    if not items:
        raise DataError("there is no title to learn from", fix="check columns item_id and title of the tables under catalogues")
    return Corpus(items, held_out, histories)


def behaviour_of(run: Run) -> list[dict[str, Any]]:
    """Name the domains whose buyers a base has read, so that no table ever asks it about them.

    Args:
        run: Of `base pretrain`.

    Returns:
        For each the domain, the built data's hash, and the hashes of the files it was built from.
    """
    found = []
    for item in run.spec.inputs:
        kind, _, name = item.role.partition(":")
        if kind == BEHAVIOUR:
            manifest = read_manifest(run.input_path(item.role))
            files = sorted(i["content_sha256"] for i in manifest.inputs if i["role"] != "items") if manifest else []
            found.append({"domain": name, "content_sha256": item.content_sha256, "files": files})
    return found


def _read_catalogues(config: BaseConfig) -> list[CatalogueItem]:
    found: dict[tuple[str, str], CatalogueItem] = {}
    for domain, path in sorted(config.catalogues.items()):
        frame = read_catalogue(expand_path(path), _COLUMNS)
        columns = {c: clean_titles(frame[c].to_list(), config.max_title_chars).titles for c in (TITLE, BRAND, CATEGORY)}
        for title, brand, category in zip(columns[TITLE], columns[BRAND], columns[CATEGORY], strict=True):
            if title:
                found.setdefault((domain, title), CatalogueItem(domain, title, brand or "", category or ""))
    return [found[key] for key in sorted(found)]


def _held_out(title: str, config: BaseConfig) -> bool:
    digest = hashlib.sha256(f"{config.seed}:{title}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < config.valid_share
