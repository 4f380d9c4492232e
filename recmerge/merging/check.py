"""What is refused before any work is done, and what is checked after it."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from recmerge.errors import ArtifactError, UsageError
from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.parts import Method, all_modules, equal_weights
from recmerge.merging.side_by_side import side_by_side

_ADAPTER_FIX = "merge adapters of one base model, or add --allow-base-mismatch if you know they fit"


def check_weights(weights: Sequence[float] | None, n_adapters: int, method: Method | None = None) -> list[float]:
    """Return one finite weight per adapter.

    Args:
        weights: As given, or None for the rule's default: 1.0 each, or equal ones that sum to one.
        n_adapters: M.
        method: The rule; None for one without demands.

    Returns:
        M weights.

    Raises:
        UsageError: There is no adapter, the counts differ, a weight is NaN, infinite, or negative where the rule takes
            shares, or all are zero.
    """
    if n_adapters == 0:
        raise UsageError("no adapters to merge, at least one is needed", fix="give --adapters A,B,C or --target T --sources S1,S2")
    if weights is None:
        return [1.0] * n_adapters if method and method.unit_weights else equal_weights(n_adapters)
    if len(weights) != n_adapters:
        raise UsageError(f"{len(weights)} weights for {n_adapters} adapters", fix="give one weight per adapter, in their order")
    for weight in weights:
        if not math.isfinite(weight):
            raise UsageError(f"weight {weight} is not allowed: weights are finite numbers", fix="mend --weights")
        if weight < 0 and method and method.shares:
            raise UsageError(f"weight {weight:g} is not allowed: this method's weights are shares of a mean, at least 0", fix="use --method task_arithmetic")
    if not any(weights):
        raise UsageError("all weights are zero, so nothing would be merged", fix="give at least one other weight")
    return [float(w) for w in weights]


def check_adapters(adapters: Sequence[AdapterFile], method: Method, name: str, warn: Callable[[str], None]) -> None:
    """Refuse adapters that a rule cannot merge; reads every number once.

    Args:
        adapters: M adapters.
        method: The rule.
        name: Its name, for errors.
        warn: Told what is odd but allowed.

    Raises:
        ArtifactError: Corrupt numbers, or modules whose shapes, ranks or scalings do not fit the rule.
    """
    _check_modules(adapters, method, name)
    list(side_by_side(AdapterFile.verify, adapters))
    _warn_of_twins(adapters, warn)
    if method.shared_init and len(adapters) > 1:
        inits = [(a.card or {}).get("lora_init_sha256") for a in adapters]
        if None in inits:
            warn(f"'{name}' assumes that all adapters started from the same A; {adapters[inits.index(None)].label} does not say what it started from")
        elif len(set(inits)) > 1:
            warn(f"'{name}' assumes that all adapters started from the same A; these did not, so it is far from the mean of their changes")
    prompts = [a.card["prompt"] for a in adapters if a.card and "prompt" in a.card]
    if any(a != b for a, b in pairwise(prompts)):
        warn("the adapters were trained with different prompts; the result takes the first one's")


def _check_modules(adapters: Sequence[AdapterFile], method: Method, name: str) -> None:
    for module in all_modules(adapters):
        having = [a for a in adapters if module in a]
        shapes = {a.shape(module) for a in having}
        if len(shapes) > 1:
            raise ArtifactError(f"module {module} has different shapes in the adapters: {sorted(shapes)}", fix="merge adapters of one base model")
        if "scaling" in method.needs and len(having) < len(adapters):
            lacking = next(a for a in adapters if module not in a)
            raise ArtifactError(f"'{name}' needs the same modules in all adapters; {lacking.label} lacks {module}", fix="use --method product")
        for need in method.needs:
            values = [getattr(a, need)(module) for a in having]
            if len(set(values)) > 1:
                shown = ", ".join(f"{v:g}" for v in values)
                raise ArtifactError(f"'{name}' needs equal {need} in all adapters; module {module} has {shown}", fix="use --method product")


def _warn_of_twins(adapters: Sequence[AdapterFile], warn: Callable[[str], None]) -> None:
    seen: dict[str, str] = {}
    for adapter in adapters:
        first = seen.setdefault(adapter.sha256, adapter.label)
        if first != adapter.label or sum(a.label == adapter.label for a in adapters) > 1:
            warn(f"the same adapter is given twice: {first} and {adapter.label}")


def base_of(adapter: AdapterFile) -> dict[str, Any]:
    """Return what an adapter says of its base: ref, revision, fingerprint and the tokenizer's hash; None where unknown."""
    card = adapter.card or {}
    base = card.get("base", {})
    revision = base.get("revision") or adapter.config.get("revision")
    return {"ref": adapter.base_ref, "revision": revision, "fingerprint": base.get("fingerprint"), "tokenizer_sha256": card.get("tokenizer_sha256")}


def check_bases(adapters: Sequence[AdapterFile], allow: bool, warn: Callable[[str], None]) -> list[str]:
    """Refuse adapters of different base models.

    Fingerprints decide where both adapters have one, else names and revisions.

    Args:
        adapters: M adapters.
        allow: Only warn of a mismatch.
        warn: Told of a mismatch that is allowed, and of adapters that name no base.

    Returns:
        The mismatches found.

    Raises:
        ArtifactError: There is one and it is not allowed.
    """
    first = base_of(adapters[0])
    found: list[str] = []
    for adapter in adapters[1:]:
        other = base_of(adapter)
        for key in _base_differences(first, other):
            found.append(f"{key} of {adapters[0].label} is {_short(first[key])}, of {adapter.label} {_short(other[key])}")
    for adapter in adapters:
        if base_of(adapter)["ref"] is None:
            warn(f"{adapter.label} does not name its base model, so it cannot be compared")
    if found and not allow:
        raise ArtifactError(f"the adapters belong to different bases: {'; '.join(found[:3])}".replace("; ", ", "), fix=_ADAPTER_FIX)
    for text in found:
        warn(f"base mismatch allowed: {text}")
    return found


def _base_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    def differ(key: str) -> bool:
        return a[key] is not None and b[key] is not None and str(a[key]).rstrip("/") != str(b[key]).rstrip("/")

    sure = a["fingerprint"] is not None and b["fingerprint"] is not None
    keys = ["fingerprint"] if sure else ["ref", "revision"]
    return [key for key in [*keys, "tokenizer_sha256"] if differ(key)]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:12] + "..."


def check_written(written: AdapterFile, modules: Sequence[str]) -> None:
    """Check an adapter that `write_adapter` wrote, its numbers compared, as others will read it.

    Args:
        written: The adapter, opened again.
        modules: What it should hold.

    Raises:
        ArtifactError: A module is missing or extra, or its scaling is not 1.
    """
    if list(written.modules) != sorted(modules):
        odd = sorted(set(written.modules) ^ set(modules))
        raise ArtifactError(f"the merged adapter has other modules than meant: {', '.join(odd[:3])}", fix="check the disk and merge again")
    scaled = [m for m in modules if written.scaling(m) != 1.0]
    if scaled:
        raise ArtifactError(f"the merged adapter's module {scaled[0]} has scaling {written.scaling(scaled[0]):g}, meant: 1", fix="merge again")
