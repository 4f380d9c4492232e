"""What a catalogue says of its items beside their titles, as numbers: brands, and categories from the widest to the narrowest."""

from abc import abstractmethod
from collections import Counter
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import torch
from torch import nn

from recmerge.data.dataset import Domain
from recmerge.names import BRAND, CATEGORY, ITEM_ID
from recmerge.rankers.attributes import brand_term, category_terms
from recmerge.rankers.per_domain import Numbers
from recmerge.rankers.sequential.model import SequentialModel
from recmerge.rankers.sequential.purchases import Purchases
from recmerge.rankers.sequential.ranker import SequentialRanker

_SHARED_BY = 2  # items at least: what one item alone has tells nothing of another


def attribute_names(domain: Domain) -> list[list[str]]:
    """Name the attributes of each item: its brand, and every beginning of its category that says something of its own.

    A category is a path joined by blanks, so the ends of its levels are not known. Of beginnings that the same items have ("Sports", "Sports &",
    "Sports & Outdoors") the longest is kept: a beginning counts where some paths end or part.

    Args:
        domain: Whose catalogue is read; an unknown brand or category is "".

    Returns:
        A list for each item, by item id: the category's beginnings from the shortest, then the brand; only what two items share.
    """
    items = domain.items.sort(ITEM_ID)
    paths = [category_terms(category) for category in items[CATEGORY]]
    brands = [brand_term(brand) for brand in items[BRAND]]
    counts = Counter(chain(chain.from_iterable(paths), (brand for brand in brands if brand)))
    found = []
    for path, brand in zip(paths, brands, strict=True):
        ends = [name for name, longer in zip_longest(path, path[1:]) if longer is None or counts[longer] < counts[name]]
        found.append([name for name in (*ends, brand) if name and counts[name] >= _SHARED_BY])
    return found


def attribute_table(domain: Domain) -> Numbers:
    """Number the attributes of each item.

    Args:
        domain: Whose catalogue of I items is read.

    Returns:
        (I + 1, M) numbers from 1, by item id, padded with 0 on the right; row 0, the cold item's, is empty. M is at least 1.
    """
    named = attribute_names(domain)
    numbers = {name: place for place, name in enumerate(sorted(set(chain.from_iterable(named))), start=1)}
    table = np.zeros((len(named) + 1, max(map(len, named), default=0) or 1), dtype=np.int64)
    for row, names in enumerate(named, start=1):
        table[row, : len(names)] = [numbers[name] for name in names]
    return table


class AttributedRanker(SequentialRanker):
    """A ranker whose models know the attributes of items.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    _table: Numbers  # of the domain that is learnt

    def measure(self, purchases: Purchases) -> dict[str, int]:
        """Return the numbers of items, of attributes, and of those that an item has at most."""
        self._table = attribute_table(purchases.domain)
        return {**super().measure(purchases), "n_attributes": int(self._table.max()), "attributes_per_item": self._table.shape[1]}

    def furnish(self, model: SequentialModel, purchases: Purchases) -> None:
        """Tell the model which attributes the items have."""
        self.attributes_in(model).furnish(self._table)

    @abstractmethod
    def attributes_in(self, model: Any) -> "Attributes":
        """Return where a model keeps them."""


class Attributes(nn.Module):
    """An embedding for every attribute, and which of them an item has.

    Args:
        n_items: I.
        n_attributes: A.
        attributes_per_item: M.
        width: D.
    """

    of_items: torch.Tensor

    def __init__(self, n_items: int, n_attributes: int, attributes_per_item: int, width: int) -> None:
        super().__init__()
        self.register_buffer("of_items", torch.zeros(n_items + 1, attributes_per_item, dtype=torch.long))
        self.embedding = nn.Embedding(n_attributes + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def furnish(self, table: Numbers) -> None:
        """Learn which attributes the items have.

        Args:
            table: From `attribute_table`.
        """
        self.of_items.copy_(torch.from_numpy(table))
