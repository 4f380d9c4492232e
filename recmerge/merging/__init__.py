"""One adapter from many, from their files alone: each rule is one function in one file."""

from recmerge.merging.factor import NEEDS as FACTOR_NEEDS
from recmerge.merging.factor import factor
from recmerge.merging.linear import NEEDS as LINEAR_NEEDS
from recmerge.merging.linear import linear
from recmerge.merging.parts import Method
from recmerge.merging.product import product
from recmerge.merging.weaverec import weaverec

METHODS: dict[str, Method] = {
    "weaverec": Method(weaverec),
    "product": Method(product),
    "factor": Method(factor, needs=FACTOR_NEEDS, shared_init=True),
    "linear": Method(linear, needs=LINEAR_NEEDS),
}
