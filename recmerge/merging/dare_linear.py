"""DARE before a weighted sum: drop entries at random, rescale the others."""

from collections.abc import Sequence

from recmerge.merging.dense import added, merge_rows
from recmerge.merging.dropping import dropped
from recmerge.merging.parts import Dense, LoraFactors


def dare_linear(factors: Sequence[LoraFactors], weights: Sequence[float], *, density: float, keys: Sequence[int], lambda_: float = 1.0) -> Dense:
    """Return lambda sum_i w_i m_i * s_i B_i A_i / density, where m_i keeps each entry with probability `density`.

    Its expectation over seeds is the weighted sum of the changes.

    Source: Yu et al. 2024, "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch"
        (arXiv 2311.03099), section 3: drop with p = 1 - density, rescale by 1 / (1 - p), then task arithmetic.
    Departures: on the exact change of the adapted modules; the draws hang on the seed, the adapter's own bytes and the
        module's name alone (see `dropped`), not on the order of adapters, modules or threads.

    Args:
        factors: M adapters' factors of one module; an adapter without it has a zero task vector there.
        weights: M weights.
        density: The fraction kept, in (0, 1].
        keys: M keys of the draws, from `draw_key`.
        lambda_: Multiplies the result.

    Returns:
        The merged change (out, in), and how many entries of each adapter were kept.

    Raises:
        ArtifactError: An entry does not fit float32.
    """
    return merge_rows(factors, dropped(density, keys), added(weights, lambda_))
