import numpy as np
import polars as pl
import torch
from baskets import basket_domain

from recmerge.data.dataset import Domain
from recmerge.rankers.sequential.attributes import Attributes, attribute_names, attribute_table

CATALOGUE = {  # by item id: brand, category
    "c": ("ACME", "Toys & Games Dolls"),
    "a": ("Acme ", "Toys & Games Dolls Barbie"),
    "b": ("alone", "Toys & Games Dolls Barbie"),
    "d": (None, "Toys & Games Puzzles"),
    "e": ("", ""),
}


def domain(catalogue: dict[str, tuple[str | None, str | None]]) -> Domain:
    rows = [(item, item, brand, category) for item, (brand, category) in catalogue.items()]
    items = pl.DataFrame(rows, schema=["item_id", "title", "brand", "category"], orient="row", schema_overrides={"brand": pl.String, "category": pl.String})
    found = basket_domain({})
    return Domain(found.name, found.profile, items, found.events, found.users, found.rows, found.candidates)


def test_a_beginning_counts_where_paths_end_or_part() -> None:
    root, dolls, barbie = (f"category Toys & Games{end}" for end in ("", " Dolls", " Dolls Barbie"))  # not "Toys" nor "Toys &"
    assert attribute_names(domain(CATALOGUE)) == [
        [root, dolls, barbie, "brand acme"],
        [root, dolls, barbie],  # nobody else is of brand `alone`
        [root, dolls, "brand acme"],
        [root],  # nothing else is a puzzle
        [],
    ]


def test_numbers_go_by_item_id_and_the_cold_item_has_none() -> None:
    table = attribute_table(domain(CATALOGUE))
    # names in order: brand acme 1, Toys & Games 2, ... Dolls 3, ... Dolls Barbie 4
    assert table.tolist() == [[0, 0, 0, 0], [2, 3, 4, 1], [2, 3, 4, 0], [2, 3, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0]]
    assert (table.max(), table.shape[1]) == (4, 4)
    turned = attribute_table(domain(dict(reversed(CATALOGUE.items()))))
    assert (turned == table).all()


def test_a_catalogue_without_attributes_has_an_empty_table() -> None:
    table = attribute_table(domain({"a": (None, None), "b": ("", "")}))
    assert table.tolist() == [[0], [0], [0]]
    assert (table.max(), table.shape[1]) == (0, 1)


def test_what_items_have_is_kept_with_the_weights() -> None:
    table = np.asarray([[0, 0], [1, 2], [2, 0]])
    attributes = Attributes(2, 2, 2, 4)
    attributes.furnish(table)
    again = Attributes(2, 2, 2, 4)
    again.load_state_dict(attributes.state_dict())
    assert again.of_items.tolist() == table.tolist()
    assert torch.equal(again.embedding.weight, attributes.embedding.weight)
    assert not again.of_items.is_floating_point()
