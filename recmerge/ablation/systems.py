"""What a system of an ablation may be, checked before anything is trained for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from recmerge.config.ablate import MergeSystemConfig, SystemConfig
from recmerge.errors import ConfigError, UsageError, unknown_name


def check_options(label: str, merge: MergeSystemConfig) -> None:
    """Refuse options that the method does not have before any adapter is trained for it."""
    if not merge.set:
        return
    from recmerge.merging import METHODS, recipe

    if merge.method not in METHODS:
        raise ConfigError(f"systems.{label}: {unknown_name('merge method', merge.method, METHODS)}", fix="`recmerge merge --list-methods` lists them")
    try:
        recipe.check_options(merge.method, {k: v for k, v in merge.set.items() if k != "dtype"}, merge.rank_out)
    except UsageError as error:
        raise ConfigError(f"systems.{label}: {error.what}", fix=error.fix) from error


def check_domains(domains: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a domain that the ablation does not build."""
    unknown = [d for d in domains if d not in known]
    if unknown:
        raise ConfigError(unknown_name("domain", unknown[0], known), fix="name domains of data.domains")


def is_trained(system: SystemConfig) -> bool:
    """Tell whether a system's ranker is trained by a command of its own before it is asked; one that there is not is left to its cell to refuse."""
    from recmerge.rankers import RANKERS

    return bool(system.train) or system.union is not None or (system.ranker is not None and system.ranker in RANKERS and RANKERS[system.ranker].is_slow)


def known_settings(system: SystemConfig, common: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings of all trained rankers that a system's ranker has."""
    from recmerge.rankers import RANKERS

    known = RANKERS[system.ranker].settings_class.model_fields if system.ranker is not None and system.ranker in RANKERS else {}
    return {key: value for key, value in common.items() if key.partition(".")[0] in known}


def split_domains(ref: str, domains: Sequence[str]) -> list[str] | None:
    """Split `sports_beauty` into known domains, whose names may hold a '_'; None where that cannot be."""
    for domain in domains:
        if ref == domain:
            return [domain]
        if ref.startswith(domain + "_"):
            rest = split_domains(ref[len(domain) + 1 :], domains)
            if rest is not None:
                return [domain, *rest]
    return None
