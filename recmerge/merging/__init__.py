"""One adapter from many, from their files alone: each rule is one function in one file."""

from recmerge.merging.dare_linear import dare_linear
from recmerge.merging.dare_ties import dare_ties
from recmerge.merging.factor import NEEDS as FACTOR_NEEDS
from recmerge.merging.factor import factor
from recmerge.merging.linear import NEEDS as LINEAR_NEEDS
from recmerge.merging.linear import linear
from recmerge.merging.lora_lego import lora_lego
from recmerge.merging.magnitude_prune import magnitude_prune
from recmerge.merging.parts import Method
from recmerge.merging.product import product
from recmerge.merging.task_arithmetic import task_arithmetic
from recmerge.merging.ties import ties
from recmerge.merging.weaverec import weaverec

# Densities: the largest 20 % is TIES' published recipe; a drop rate of 0.2 is what DARE's published code merges with.
_TRIM = {"density": 0.2, "trim": "whole", "lambda": 1.0}
_DROP = {"density": 0.8, "seed": 0, "lambda": 1.0}

METHODS: dict[str, Method] = {
    "weaverec": Method(weaverec, adds=True),
    "product": Method(product, adds=True),
    "factor": Method(factor, needs=FACTOR_NEEDS, shared_init=True),
    "linear": Method(linear, needs=LINEAR_NEEDS),
    "task_arithmetic": Method(task_arithmetic, options={"lambda": 1.0}, adds=True, unit_weights=True),
    "ties": Method(ties, options=_TRIM, full_rank=True, unit_weights=True),
    "dare_linear": Method(dare_linear, options=_DROP, full_rank=True, unit_weights=True),
    "dare_ties": Method(dare_ties, options=_DROP, full_rank=True, unit_weights=True),
    "magnitude_prune": Method(magnitude_prune, options=_TRIM, full_rank=True, unit_weights=True),
    "lora_lego": Method(lora_lego, options={"clusters": None, "seed": 0}, unit_weights=True, shares=True),
}
