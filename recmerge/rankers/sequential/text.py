"""A domain's titles, and their vectors as models read them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recmerge.names import ITEM_ID, TITLE
from recmerge.rankers.sentence_encoder import read_titles
from recmerge.rankers.sequential.purchases import Purchases

Vectors = npt.NDArray[np.float16]


def titles_of(purchases: Purchases) -> list[str]:
    """Return the titles of a domain's I items, by number."""
    titles = dict(purchases.domain.items.select(ITEM_ID, TITLE).iter_rows())
    return [titles[item] for item in purchases.items]


def title_vectors(titles: Sequence[str], model: str, device: str = "cpu") -> Vectors:
    """Read titles, see `read_titles`.

    Args:
        titles: I texts; equal ones get equal vectors.
        model: The name of a packaged sentence encoder, or the folder of one.
        device: "cpu" or "cuda".

    Returns:
        (I, F) vectors of length 1 to the precision of float16.
    """
    return read_titles(titles, model, device).vectors.astype(np.float16)
