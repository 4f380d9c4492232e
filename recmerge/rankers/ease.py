"""The floor of a linear model in closed form: EASE."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from recmerge.data.dataset import Domain
from recmerge.errors import ConfigError, ResourceError
from recmerge.rankers.pairs import baskets
from recmerge.rankers.per_domain import Numbers, PerDomainRanker, Places, expect_shape
from recmerge.rankers.protocol import RankerSettings, Scores
from recmerge.runs.memory import available_memory

_Matrix = npt.NDArray[np.float32]
_GB = 1e9


class EaseSettings(RankerSettings):
    """How much the weights are held back."""

    regularization: float = Field(1000.0, gt=0, description="lambda, of the squared weights")


@dataclass(frozen=True)
class _Weights:
    """What a purchase of each of a domain's I items says for each other.

    Args:
        items: Item id to its place.
        weights: (I, I) from the item bought, the row, to the item scored; 0 on the diagonal.
    """

    items: Places
    weights: _Matrix

    def __post_init__(self) -> None:
        expect_shape("weights", self.weights, len(self.items), len(self.items))


class EaseRanker(PerDomainRanker[_Weights]):
    """Scores an item by the weights that lead to it from the items bought, each once: x B for a user's 0/1 row x.

    B minimises |X - X B|^2 + lambda |B|^2 for the 0/1 matrix X of users and items, with zeros on its diagonal. With
    P = (X'X + lambda I)^-1 it is -P_ij / P_jj off the diagonal.

    The matrix of I * I numbers of 4 bytes is inverted where it lies: 0.6 GB for 12,000 items, 1.3 GB for 18,000, 10 GB for
    50,000, twice that while it is saved. The time grows with I^3. A catalogue that does not fit the available memory is refused.

    Source: H. Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, equations 2 and 8.
    Departures: 4-byte floats; the inverse by Cholesky's decomposition. The default lambda was chosen on validation events of
    Amazon Toys (5,000 users, NDCG@1/@5): .285/.378, against .276/.367 with 100, .283/.376 with 300 and .284/.379 with 3,000.

    Args:
        settings: None: the defaults.
        seed: Accepted like every ranker's; the closed form needs none.
    """

    name: ClassVar[str] = "ease"
    settings_class = EaseSettings
    settings: EaseSettings
    learnt_class = _Weights

    def learn(self, domain: Domain) -> _Weights:
        """Solve for the weights.

        Args:
            domain: Whose training events are looked at.

        Returns:
            The weights.

        Raises:
            ConfigError: The regularisation is too small for the inverse to be found in 4-byte floats.
            ResourceError: The matrix does not fit the available memory.
        """
        places, users, items = baskets(domain)
        _refuse_too_many(domain.name, len(places))
        weights = np.zeros((len(places), len(places)), dtype=np.float32)
        for basket in np.split(items, np.flatnonzero(np.diff(users)) + 1):
            weights[np.ix_(basket, basket)] += 1
        weights[np.diag_indices(len(places))] += np.float32(self.settings.regularization)
        try:
            _invert(weights)
        except ArithmeticError as error:
            what = f"ranker.regularization = {self.settings.regularization} is too small to invert the {len(places)} x {len(places)} matrix of '{domain.name}'"
            raise ConfigError(what, fix="raise it") from error
        weights /= -weights.diagonal()
        np.fill_diagonal(weights, 0)
        return _Weights(places, weights)

    def judge(self, learnt: _Weights, user_id: str, bought: Numbers, asked: Numbers) -> Scores:
        """Return (C,) sums of weights, of either sign."""
        return learnt.weights[np.ix_(np.unique(bought), asked)].sum(axis=0, dtype=np.float64)


def _refuse_too_many(domain: str, n_items: int) -> None:
    needed, available = 2 * 4 * n_items**2, available_memory()
    if available is not None and needed > available:
        raise ResourceError(
            f"ease needs {needed / _GB:.1f} GB of memory for the {n_items:,} items of '{domain}', {available / _GB:.1f} GB is available",
            fix="use a ranker that holds no matrix of all items, e.g. itemknn or als",
        )


def _invert(matrix: _Matrix) -> None:
    """Replace a symmetric positive definite matrix by its inverse; nothing of its size is held beside it.

    Args:
        matrix: (I, I).

    Raises:
        ArithmeticError: It is not positive definite in its precision.
    """
    import torch

    columns = torch.from_numpy(matrix).mT  # LAPACK's own order, or torch would copy
    try:
        torch.linalg.cholesky(columns, out=columns)
    except torch.linalg.LinAlgError as error:
        raise ArithmeticError(str(error)) from error
    torch.cholesky_inverse(columns, out=columns)
