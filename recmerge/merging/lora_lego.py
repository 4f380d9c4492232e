"""LoRA-LEGO: cluster the rank-one units of all adapters and build one adapter of the centroids."""

import math
from collections.abc import Sequence

import numpy as np

from recmerge.merging.k_means import k_means, shares
from recmerge.merging.parts import LoraFactors, LowRank

_CANCELLED = 1e-12  # a centroid this short, relative to its units, has no direction


def lora_lego(factors: Sequence[LoraFactors], weights: Sequence[float], *, clusters: int, keys: Sequence[int]) -> LowRank:
    """Return the adapter whose rank-one units are the centroids of clusters of the adapters' units.

    A minimal semantic unit (MSU) is row k of A with column k of s B. The MSUs of all adapters in a module are pooled and
    clustered by k-means; a centroid (b, a) becomes one column of B and one row of A, after two reweightings:
    parameters, (b, a) times the mean norm of its MSUs over its own norm, since averaging shortens; output, the whole times
    sqrt(r / k), since the variance of the output grows with the number k of units, and the adapters have r.

    Source: Zhao et al. 2024, "Merging LoRAs like Playing LEGO: Pushing the Modularity of LoRA to Extremes Through Rank-Wise
        Clustering" (arXiv 2409.16167), abstract and figure 3: MSUs, clusters, centroids, dual reweighting.
    Departures: the text of the paper with the two factors could not be read, so these are ours: the Euclidean norm of
        the whole MSU in the first (a reimplementation in public code takes the largest entry instead), the factor
        sqrt(r / k) (as there) with r the largest rank among the adapters and k the clusters made; also ours: the scaling s
        stands in B before clustering; units of zeros are left out; weights, which the paper does not have, are the mass
        of an adapter's units in k-means and its means, so only their ratios matter; ten starts by k-means++ from a seed.

    Args:
        factors: M adapters' factors of one module; ranks may differ.
        weights: M shares, none negative; an adapter of weight 0 is left out.
        clusters: k, the rank of the result; fewer where there are fewer different units.
        keys: M keys of the draws, from `draw_key`; they also order the pool, so that the order of adapters does not matter.

    Returns:
        B (out, k), which carries the scalings, and A (k, in).
    """
    order = [i for i in sorted(range(len(factors)), key=keys.__getitem__) if weights[i] > 0]
    b = np.concatenate([factors[0].B[:, :0], *(factors[i].scaling * factors[i].B for i in order)], axis=1)
    a = np.concatenate([factors[0].A[:0], *(factors[i].A for i in order)], axis=0)
    mass = np.repeat([weights[i] for i in order], [factors[i].rank for i in order])
    gram = b.T @ b + a @ a.T
    there = np.diag(gram) > 0
    if not there.any():
        return LowRank(b[:, :0], a[:0])
    b, a, mass, gram = b[:, there], a[there], mass[there], gram[np.ix_(there, there)]
    share = shares(k_means(gram, mass, clusters, min(keys[i] for i in order)), mass)
    k = share.shape[1]
    mean_norm = np.sqrt(np.diag(gram)) @ share
    own_norm = np.sqrt(np.maximum(np.einsum("nk,nm,mk->k", share, gram, share), 0.0))
    longer = np.divide(mean_norm, own_norm, out=np.zeros(k), where=own_norm > _CANCELLED * mean_norm)
    output = math.sqrt(max(factors[i].rank for i in order) / k)
    return LowRank(output * longer * (b @ share), longer[:, None] * (share.T @ a))
