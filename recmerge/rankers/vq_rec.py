"""The transferable ranker over discrete codes of titles: VQ-Rec."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from recmerge.rankers.kept import kept
from recmerge.rankers.sentence_encoder import READER_NEEDS
from recmerge.rankers.sequential.batches import Batch, Rows
from recmerge.rankers.sequential.losses import info_nce
from recmerge.rankers.sequential.model import SequentialModel
from recmerge.rankers.sequential.purchases import COLD, Purchases, validation_questions
from recmerge.rankers.sequential.ranker import device_of
from recmerge.rankers.sequential.together import TitledItems, TransferModel, TransferRanker, TransferSettings, some_asked
from recmerge.rankers.sequential.training import train
from recmerge.rankers.sequential.transformer import TransformerEncoder

_STAY = 8.0  # how much likelier, in logits, a code stays where it is before anything is learnt of it
_FASTER = 100.0  # than other weights is how places are learnt, so that some epochs can move a code
_ROUNDS, _EXCHANGES = 10, 3  # of learning the rotation; of Sinkhorn's normalisation
_WARMTH = 0.7  # Sinkhorn's temperature
_READ_TO_LEARN = 39 * 256  # titles at most that the codes are learnt from; as many as faiss asks for

Codes = npt.NDArray[np.uint8]


class VqRecSettings(TransferSettings):
    """The codes, and the first stage."""

    digits: int = Field(32, ge=1, description="of an item's code")
    bits: int = Field(8, ge=1, le=8, description="of a digit, which has 2 to the power of it values")
    replaced: float = Field(0.75, gt=0, le=1, description="share of the digits of a bought item's code that are others in the negative made from it")
    alignment: float = Field(0.0, ge=0, lt=1, description="share of a domain's epochs and minutes in which it learns but which value takes which place")


class CodedItems(TitledItems):
    """The mean of the embeddings of an item's digits.

    Args:
        n_items: I.
        digits: K.
        values: V of each digit.
        width: D.
    """

    codes: torch.Tensor

    def __init__(self, n_items: int, digits: int, values: int, width: int) -> None:
        super().__init__(n_items)
        self.register_buffer("codes", torch.zeros(n_items + 1, digits, dtype=torch.uint8))
        self.embedding = nn.Parameter(torch.randn(digits, values, width) * 0.02)
        self.cold = nn.Parameter(torch.randn(width) * 0.02)
        self.places = nn.Parameter(_STAY * torch.eye(values).repeat(digits, 1, 1), requires_grad=False)
        self.is_moving = False  # while places are learnt

    def furnish(self, codes: Codes) -> None:
        """Take over (I, K) digits."""
        self.codes[1:] = torch.from_numpy(codes).to(self.codes)

    def values(self) -> torch.Tensor:
        """Return (K, V, D) embeddings, exchanged by the places that are being learnt."""
        return straight_permutation(self.places, noisy=self.training) @ self.embedding if self.is_moving else self.embedding

    def coded(self, codes: torch.Tensor) -> torch.Tensor:
        """Return (N, D) vectors of (N, K) digits."""
        digits, values, width = self.embedding.shape
        rows = codes.long() + values * torch.arange(digits, device=codes.device)
        return functional.embedding_bag(rows, self.values().reshape(-1, width), mode="mean")

    def of(self, items: torch.Tensor) -> torch.Tensor:
        """Return (N, D) vectors of (N,) numbers."""
        return torch.where((items > COLD)[:, None], self.coded(self.codes[items]), self.cold)

    def settle(self) -> None:
        """Give every value the embedding of the place it has learnt to take, no place to two of them."""
        from scipy.optimize import linear_sum_assignment

        for digit, scores in enumerate(self.places.detach().cpu().numpy()):
            order = torch.from_numpy(linear_sum_assignment(scores, maximize=True)[1]).to(self.embedding.device)
            self.embedding.data[digit] = self.embedding.data[digit, order]
        self.places.data.copy_(_STAY * torch.eye(self.places.shape[1]))


def straight_permutation(logits: torch.Tensor, *, noisy: bool) -> torch.Tensor:
    """Return matrices of one 1 in a row, whose gradient is that of the doubly stochastic ones behind them.

    Args:
        logits: (K, V, V).
        noisy: Add Gumbel noise.

    Returns:
        (K, V, V); the 1 stands where Sinkhorn's matrix is largest.
    """
    if noisy:
        logits = logits - torch.empty_like(logits).exponential_().clamp(min=1e-20).log()
    logs = logits / _WARMTH
    for _ in range(_EXCHANGES):
        logs = logs.log_softmax(2)
        logs = logs.log_softmax(1)
    soft = logs.exp()
    hard = torch.zeros_like(soft).scatter_(2, soft.argmax(2, keepdim=True), 1.0)
    return hard - soft.detach() + soft


class VqRecModel(TransferModel):
    """A causal transformer over codes.

    Args:
        n_items: I.
        settings: The ranker's.
    """

    items: CodedItems

    def __init__(self, n_items: int, settings: VqRecSettings) -> None:
        s = settings
        encoder = TransformerEncoder(s.width, s.blocks, s.heads, s.inner, s.dropout, s.max_history)
        super().__init__(CodedItems(n_items, s.digits, 2**s.bits, s.width), encoder, s)
        self.replaced = s.replaced

    def half_made(self, items: torch.Tensor) -> torch.Tensor:
        """Return (N, K) codes of (N,) items with some digits replaced by values drawn uniformly."""
        codes = self.items.codes[items]
        drawn = torch.randint_like(codes, self.items.embedding.shape[1])
        return torch.where(torch.rand(codes.shape, device=codes.device) < self.replaced, drawn, codes)

    def transfer_loss(self, batch: Batch) -> torch.Tensor:
        """Return how hard it is to tell a question's item from those of other questions, and from one half made of its own code."""
        vectors, (read, right) = self.items.once(batch.items, batch.targets)
        found, asked = self.expected(batch.items, vectors, read), some_asked(batch.targets)
        targets = batch.targets[asked]
        wrong = self.items.coded(self.half_made(targets))
        return info_nce(found[asked], functional.embedding(right[asked], vectors), self.temperature, targets, wrong)


def learn_codes(vectors: npt.NDArray[np.floating[Any]], digits: int, bits: int) -> Codes:
    """Learn optimised product quantisation and apply it, or find what was made of the same vectors before.

    Args:
        vectors: (N, F); equal ones get equal codes. Which of many are learnt from is drawn by a seed of its own, the same for every run.
        digits: K.
        bits: Of a digit.

    Returns:
        (N, K) digits.
    """
    import faiss

    known = np.ascontiguousarray(vectors, dtype=np.float32)
    told = f"{faiss.__version__} {digits} {bits} {_ROUNDS} {_READ_TO_LEARN} {known.shape}".encode() + known.tobytes()
    return kept("codes", told, lambda: {"codes": _coded(known, digits, bits)})["codes"]


def _coded(known: npt.NDArray[np.float32], digits: int, bits: int) -> Codes:
    import faiss

    distinct = np.unique(known, axis=0)
    sample = np.random.default_rng(0).permutation(distinct)[:_READ_TO_LEARN]
    n_features = known.shape[1]
    width = max(digits, n_features // digits * digits)
    least = max(2**bits, n_features, width)  # again from the first where there are fewer: faiss writes beyond its memory with fewer than F
    sample = np.resize(sample, (max(len(sample), least), n_features))
    quantizer = faiss.ProductQuantizer(width, digits, bits)
    quantizer.cp.min_points_per_centroid = 1
    rotation = faiss.OPQMatrix(n_features, digits, width)
    rotation.niter, rotation.pq = _ROUNDS, quantizer
    rotation.train(sample)
    quantizer.train(rotation.apply(sample))
    packed = quantizer.compute_codes(rotation.apply(known))
    return faiss.unpack_bitstrings(packed, digits, bits).astype(np.uint8)  # type: ignore[no-any-return]


class VqRecRanker(TransferRanker):
    """Scores an item by the cosine of the mean embedding of its title's code with what a causal transformer makes of the purchases.

    A code has 32 digits of 256 values, learnt of the titles of all domains of a set by optimised product quantisation. The embeddings of digits and
    the transformer are first trained on all domains together: to find each next item among those of the other questions of
    a batch, whatever their domain, and one whose code is half made up. Each domain then learns by itself, with `alignment` which value takes the place
    of which, digit by digit, and after that the embeddings.

    Source: Y. Hou, Z. He, J. McAuley and W. X. Zhao, Learning vector-quantized item representation for transferable sequential
    recommenders, WWW 2023.
    Departures: titles alone are read, by all-MiniLM-L6-v2 and not by BERT. The first stage, and the codes, see the very domains that are
    ranked later, not others, with batches of 256 rows and up to 4,096 questions; one domain alone has no first stage and nothing to align.
    Domains learnt together have the same codes, so values mean the same in all, and `alignment` is off unless it is asked for; the paper's
    domains have codes of their own. Values then begin in their own places, not in random ones, learn them 100 times faster than other
    weights, and keep those that no two share. A question stands at every place of a row, not one at its end with a row for every purchase.
    The rotation is learnt in 10 rounds, from 9,984 titles at most. Positions count from the newest purchase.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives, noise and the order of batches.
    """

    name: ClassVar[str] = "vq_rec"
    needs = (*READER_NEEDS, "faiss", "scipy")
    settings_class = VqRecSettings
    settings: VqRecSettings
    own = ("items.codes", "items.places")

    codes: dict[str, Codes]  # of a domain's items by number, between the beginning of a fit and its domain's turn

    def prepare(self, shops: Sequence[Purchases]) -> None:
        """Read all titles, and learn the codes."""
        super().prepare(shops)
        names = [shop.domain.name for shop in shops]
        codes = learn_codes(np.concatenate([self.vectors.pop(name) for name in names]), self.settings.digits, self.settings.bits)
        edges = np.cumsum([len(shop.items) for shop in shops])[:-1]
        self.codes = dict(zip(names, np.split(codes, edges), strict=True))

    def build(self, sizes: Mapping[str, int]) -> VqRecModel:
        """Make an untrained model."""
        return VqRecModel(sizes["n_items"], self.settings)

    def furnish(self, model: SequentialModel, purchases: Purchases) -> None:
        """Tell the model the items' codes."""
        assert isinstance(model, VqRecModel)
        model.items.furnish(self.codes.pop(purchases.domain.name))

    def united_model(self, shops: Sequence[Purchases]) -> VqRecModel:
        """Make the untrained model of all domains."""
        codes = np.concatenate([self.codes[shop.domain.name] for shop in shops])
        model = VqRecModel(len(codes), self.settings)
        model.items.furnish(codes)
        return model

    def teach(self, model: SequentialModel, purchases: Purchases) -> dict[str, Any]:
        """Learn the places, where there was a first stage, and then the embeddings."""
        assert isinstance(model, VqRecModel)
        s, end = self.settings, self.end_of_stage()
        facts = {}
        if self.is_pretrained and s.alignment:
            facts["alignment"] = self.align(model, purchases, s.part_way(s.alignment, end))
        self.freeze(model)
        left = max(1, self.own_epochs() - (self.alignment_epochs() if facts else 0))
        return {**self.refined(model, purchases, end, epochs=left).facts(), **facts}

    def alignment_epochs(self) -> int:
        """Return how many of the domain's own epochs only learn which value takes which place."""
        return max(1, round(self.settings.alignment * self.own_epochs()))

    def align(self, model: VqRecModel, purchases: Purchases, deadline: float | None) -> dict[str, Any]:
        """Learn the places alone, and settle in them.

        Args:
            model: After the first stage.
            purchases: The domain's.
            deadline: By the settings' clock; None: there is none.

        Returns:
            Facts for the run's manifest.
        """
        s = self.settings
        model.requires_grad_(False)
        model.items.places.requires_grad_(True)
        model.items.is_moving = True
        rows = Rows(purchases, s.max_history, every_place=True, device=device_of(model))
        schedule = replace(s.schedule(self.alignment_epochs()), learning_rate=_FASTER * s.learning_rate, eval_every=1)
        asked = validation_questions(purchases, s.eval_users)
        outcome = train(model, rows, schedule, asked, seed=self.seed, deadline=deadline, say=self.say)
        model.items.is_moving = False
        model.items.settle()
        model.requires_grad_(True)
        model.items.places.requires_grad_(False)
        return outcome.facts()
