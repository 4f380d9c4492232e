"""The floor of matrix factorisation by alternating least squares."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recmerge.data.dataset import Domain
from recmerge.rankers.pairs import baskets
from recmerge.rankers.per_domain import Numbers, PerDomainRanker, Places, expect_shape
from recmerge.rankers.protocol import RankerSettings, Scores

_Floats = npt.NDArray[np.float64]


class AlsSettings(RankerSettings):
    """Size and strength of the factorisation."""

    factors: int = Field(32, ge=1)
    regularization: float = Field(50.0, gt=0)
    alpha: float = Field(100.0, gt=0, description="confidence in a purchase, where that in its absence is 1")
    iterations: int = Field(30, ge=1, description="of users' and items' factors in turn")


@dataclass(frozen=True)
class _Factors:
    """The factors of a domain's I items.

    Args:
        items: Item id to its row.
        factors: (I, F).
        products: (F, F) of the factors with each other, summed over the items.
    """

    items: Places
    factors: _Floats
    products: _Floats

    def __post_init__(self) -> None:
        expect_shape("factors", self.factors, len(self.items), len(self.products))


class AlsRanker(PerDomainRanker[_Factors]):
    """Scores an item by the product of its factors with the user's, both fitted to who bought what.

    Every user and item has F factors whose products come near 1 for purchases and near 0 for all else, purchases weighing
    `alpha`. Only the items' factors are kept. A user's are solved for from the whole history that is asked with, trained on or
    not, each item once: x = (Y'Y + (alpha - 1) Y_h'Y_h + regularization I)^-1 alpha sum Y_h, with Y all items' factors and Y_h the
    bought ones'. Without history all items score 0.

    Source: Y. Hu, Y. Koren and C. Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008, equations 3 to 5,
    as the library `implicit` fits them, by 3 steps of conjugate gradients a time.
    Departures: confidence is alpha for a purchase, as in `implicit`, not 1 + alpha; a purchase repeated counts once. Defaults
    chosen on validation events of Amazon Sports, Beauty and Toys (5,000 users each, NDCG@1/@5): .317/.465, .331/.467, .302/.443;
    with 64 factors .307/.446, .326/.450, .311/.442.

    Args:
        settings: None: the defaults.
        seed: Of the first factors.
    """

    name: ClassVar[str] = "als"
    needs = ("implicit",)
    settings_class = AlsSettings
    settings: AlsSettings
    learnt_class = _Factors

    def learn(self, domain: Domain) -> _Factors:
        """Fit the factors."""
        places, users, items = baskets(domain)
        factors = self._fitted(users, items) if len(items) else np.zeros((0, self.settings.factors))
        return _Factors(places, factors, factors.T @ factors)

    def _fitted(self, users: Numbers, items: Numbers) -> _Floats:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy.sparse import csr_matrix
        from threadpoolctl import threadpool_limits

        bought = csr_matrix((np.ones(len(items), dtype=np.float32), (users, items)))
        with threadpool_limits(1, "blas"):  # the library's own threads call BLAS; more threads there would only be in the way
            model = AlternatingLeastSquares(**self.settings.model_dump(), random_state=self.seed)
            model.fit(bought, show_progress=False)
        return model.item_factors.astype(np.float64)

    def judge(self, learnt: _Factors, user_id: str, bought: Numbers, asked: Numbers) -> Scores:
        """Return (C,) products, about 0 to 1."""
        alpha, own = self.settings.alpha, learnt.factors[np.unique(bought)]
        held_back = self.settings.regularization * np.eye(len(learnt.products))
        user = np.linalg.solve(learnt.products + (alpha - 1) * (own.T @ own) + held_back, alpha * own.sum(axis=0))
        products: Scores = np.einsum("cf,f->c", learnt.factors[asked], user)  # not BLAS: equal items must tie, wherever they stand
        return products
