"""The set that an adapter is trained on: a built domain, or rows of several mixed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recmerge.data.dataset import Domain, read_domain, read_frame, user_order
from recmerge.errors import ArtifactError, UsageError, unknown_name
from recmerge.names import DOMAIN, ROWS_FILE, USER_ID
from recmerge.runs.manifest import Manifest, read_manifest
from recmerge.runs.workspace import Workspace

_BUYER_SEED = 42  # one order of buyers for every set and every size


@dataclass(frozen=True)
class TrainingSet:
    """What an adapter is trained on.

    Args:
        name: Its run name, e.g. "beauty_sports".
        domains: The domains it holds, by name.
        rows: `domain` and the columns of `Domain.rows`, in training order.
    """

    name: str
    domains: dict[str, Domain]
    rows: pl.DataFrame


def read_training_set(folder: Path, manifest: Manifest, workspace: Workspace) -> TrainingSet:
    """Read a built domain, or a mixed set with the domains it was made from.

    Args:
        folder: The version folder.
        manifest: Its manifest; that of a mixed set names its domains as inputs `domain:<name>`.
        workspace: Where those lie.

    Returns:
        The set.

    Raises:
        ArtifactError: A domain is gone or was changed since, or a file cannot be read.
    """
    if manifest.stage == "build":
        domain = read_domain(folder)
        rows = domain.rows.select(pl.lit(domain.name).alias(DOMAIN), pl.all())
        return TrainingSet(manifest.name, {domain.name: domain}, rows)
    domains = {}
    for item in manifest.inputs:
        role, _, name = item["role"].partition(":")
        if role == DOMAIN:
            domains[name] = read_domain(_unchanged(workspace.root / item["path"], item, manifest), name)
    return TrainingSet(manifest.name, domains, read_frame(folder / ROWS_FILE))


def _unchanged(folder: Path, item: dict[str, str], mixed: Manifest) -> Path:
    now = read_manifest(folder)
    if now is None or now.content_sha256 != item["content_sha256"]:
        state = "is gone" if now is None else "is not the one it was"
        raise ArtifactError(f"{mixed.name} was mixed from {folder}, which {state}", fix=f"recmerge data mix {' '.join(mixed.facts.get('domains', []))}")
    return folder


def limit_buyers(data: TrainingSet, limits: Mapping[str, int]) -> tuple[TrainingSet, dict[str, frozenset[str]]]:
    """Keep the training rows of some buyers only: a shop with less data.

    Args:
        data: The set.
        limits: How many buyers of a domain, by its name; domains that are not named stay whole.

    Returns:
        The smaller set, and the buyers kept of each named domain: the first of a seeded order, so that fewer are
        always among more, whatever set the domain stands in.

    Raises:
        UsageError: The set does not hold a named domain, or the domain has not that many buyers.
    """
    buyers: dict[str, frozenset[str]] = {}
    rows = data.rows
    for name, n in sorted(limits.items()):
        if name not in data.domains:
            raise UsageError(unknown_name("domain", name, sorted(data.domains)), fix=f"name domains of '{data.name}' under buyers")
        known = data.domains[name].users[USER_ID]
        if n > len(known):
            raise UsageError(f"buyers.{name} is {n}, and '{name}' has {len(known)}", fix="ask for fewer, or leave it out")
        buyers[name] = frozenset(user_order(known, _BUYER_SEED)[:n])
        rows = rows.filter((pl.col(DOMAIN) != name) | pl.col(USER_ID).is_in(buyers[name]))
    return TrainingSet(data.name, data.domains, rows), buyers
