from collections.abc import Callable
from dataclasses import replace

import pytest

from recmerge.data.building import build_clean
from recmerge.data.dataset import Domain
from recmerge.data.mixing import mix_rows
from recmerge.data.sources import RawTables
from recmerge.errors import DataError, UsageError


@pytest.fixture
def pair(grid: Callable[..., RawTables]) -> tuple[Domain, Domain]:
    return build_clean("a", grid(n_users=20), n_candidates=10)[0], build_clean("b", grid(n_users=30, n_events=5), n_candidates=10)[0]


def test_a_mix_holds_the_first_rows_of_each_domain(pair: tuple[Domain, Domain]) -> None:
    a, b = pair
    mixed = mix_rows([a, b], {"a": 25, "b": 1000}, 42)
    assert dict(mixed["domain"].value_counts().rows()) == {"a": 25, "b": 60}
    kept = mixed.filter(mixed["domain"] == "a").drop("domain")
    assert sorted(kept.rows()) == sorted(a.rows.head(25).rows())


def test_a_mix_is_symmetric_and_seeded(pair: tuple[Domain, Domain]) -> None:
    a, b = pair
    caps = {"a": 100, "b": 100}
    assert mix_rows([a, b], caps, 42).equals(mix_rows([b, a], caps, 42))
    assert not mix_rows([a, b], caps, 42).equals(mix_rows([a, b], caps, 43))


def test_domains_are_interleaved(pair: tuple[Domain, Domain]) -> None:
    names = mix_rows(list(pair), {"a": 100, "b": 100}, 42)["domain"].to_list()
    assert 10 < names[:60].count("a") < 50


def test_one_domain_twice_or_two_profiles_are_refused(pair: tuple[Domain, Domain]) -> None:
    a, b = pair
    with pytest.raises(UsageError, match="different domains"):
        mix_rows([a, a], {"a": 1}, 42)
    with pytest.raises(DataError, match="a is clean, b is published"):
        mix_rows([a, replace(b, profile="published")], {"a": 1, "b": 1}, 42)
