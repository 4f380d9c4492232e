"""Options and rank-out: defaults, and what is refused before anything is opened."""

from typing import Any

import pytest

from recmerge.errors import UsageError
from recmerge.merging import METHODS
from recmerge.merging.recipe import Recipe, check_options, complete
from tests.merging.test_rules import random_factors
from tests.merging.tiny import Loose

NOTHING: dict[str, Any] = dict.fromkeys(("density", "lambda", "trim", "seed", "clusters"))


@pytest.mark.parametrize("name", METHODS)
def test_options_of_a_method_have_defaults(name: str) -> None:
    assert check_options(name, NOTHING, None) == METHODS[name].options
    assert set(METHODS[name].options) <= set(NOTHING)


def test_what_is_given_outweighs_the_default() -> None:
    assert check_options("ties", {**NOTHING, "density": 0.5, "lambda": 0.0}, "svd:3") == {"density": 0.5, "trim": "whole", "lambda": 0.0}


@pytest.mark.parametrize(
    ("name", "option"), [("product", "density"), ("weaverec", "lambda"), ("ties", "seed"), ("dare_ties", "trim"), ("task_arithmetic", "clusters")]
)
def test_an_option_that_a_method_does_not_have_is_refused(name: str, option: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' has no option '{option}'"):
        check_options(name, {**NOTHING, option: 1}, None)


@pytest.mark.parametrize("name", METHODS)
def test_stacked_factors_cannot_hold_full_rank(name: str) -> None:
    if METHODS[name].full_rank:
        with pytest.raises(UsageError, match="whose rank is full") as caught:
            check_options(name, NOTHING, "cat")
        assert "svd:16" in str(caught.value.fix)
    else:
        check_options(name, NOTHING, "cat")


@pytest.mark.parametrize("name", METHODS)
def test_the_default_rank_out_is_cat_or_svd_of_the_largest_rank(name: str) -> None:
    adapters = [Loose({"m": f}) for f in random_factors(3)]  # ranks 1, 2 and 3
    whole = complete(Recipe(name, [1.0] * 3, "", METHODS[name].options), None, adapters)
    assert whole.rank_out == ("svd:3" if METHODS[name].full_rank else "cat")
    assert whole.options.get("clusters", 3) == 3
    assert complete(whole, "fold", adapters).rank_out == "fold"
