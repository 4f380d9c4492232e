"""Products in tiles are those of the whole matrices, wherever the tiles' edges fall."""

import numpy as np
import pytest

from recmerge.merging.tiles import gram


@pytest.mark.parametrize("width", [0, 1, 3, 64, 300])
@pytest.mark.parametrize("n", [0, 1, 97, 1023, 1024, 1025, 3 * 1024 + 5])  # less than a block, one, more, several and a rest
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_a_matrix_times_its_own_transpose(width: int, n: int, turned: bool, quick: bool) -> None:
    tall = np.random.default_rng(0).normal(size=(width, n) if turned else (n, width)).astype(np.float32)
    tall = tall.T if turned else tall
    exact = tall.astype(np.float64).T @ tall.astype(np.float64)
    sizes = np.sqrt(np.diag(exact))
    assert (np.abs(gram(tall, quick) - exact) <= (5e-7 if quick and n > 1024 else 1e-14) * np.outer(sizes, sizes)).all()
