"""Stop before a model is asked about purchases that it, its base or another domain's buyers have taught it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recmerge.data.splitting import cuts_in
from recmerge.errors import GateError
from recmerge.lm.base import base_card
from recmerge.runs.manifest import read_manifest
from recmerge.runs.resolve import Found
from recmerge.runs.workspace import Workspace


def refuse_read_buyers(workspace: Workspace, folder: Path | None, data: Found) -> None:
    """Stop where a base has read the buyers of a domain that it is to be trained on or asked about.

    Args:
        workspace: Where the domains lie that a mixed set is made of.
        folder: The base's, or that of a model that was folded from one.
        data: A built domain or a mixed set.

    Raises:
        GateError: It has: the domain's name, its built data or a file that it was built from is on the base's card.
    """
    read = base_card(folder).get("behaviour") or []
    if not read:
        return
    asked = [data.manifest]
    if data.manifest.stage != "build":
        asked = [m for i in data.manifest.inputs if (m := read_manifest(workspace.root / i["path"])) is not None]
    names = {d for m in asked for d in m.facts.get("domains", [])} | set(data.manifest.facts.get("domains", []))
    hashes = {m.content_sha256 for m in asked} | {i["content_sha256"] for m in asked for i in m.inputs if i["role"] != "items"}
    for entry in read:
        if entry["domain"] in names or entry["content_sha256"] in hashes or hashes & set(entry["files"]):
            raise GateError(
                f"this base has read the buyers of '{entry['domain']}', so '{data.manifest.name}' would be asked about purchases that it knows",
                fix="use another domain, or a base that has not read it (see its README.md)",
            )


def refuse_later_training(card: Mapping[str, Any], data: Found) -> None:
    """Stop where an adapter was trained on events that a domain holds out, because its data was split otherwise.

    A leave-one-out set trains on events behind any point in time, also through another domain's buyers; a set split by time trains on last
    events of its own domain. An adapter that does not say how its data was split passes.

    Args:
        card: What is noted beside the adapter.
        data: The built domain that it is to be asked about.

    Raises:
        GateError: It was.
    """
    asked = cuts_in(data.manifest.facts.get("split", {}))
    own = set(data.manifest.facts.get("domains", [])) & set(card.get("domains", []))
    for noted in card.get("splits", []):
        taught = cuts_in(noted)
        if asked is None and (taught is None or not own):
            continue
        if asked is not None and taught is not None and taught.valid <= asked.valid and taught.test <= asked.test:
            continue
        how = [f"split at {cuts}" if cuts else "split by leave_one_out" for cuts in (taught, asked)]
        raise GateError(
            f"the adapter was trained on data {how[0]}, '{data.manifest.name}' is {how[1]}: it would be asked about purchases that it knows",
            fix="train on data of the same split",
        )
