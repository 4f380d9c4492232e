"""A ranker around a sequential model: fit, score, save and load."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.lm.device import pick_device
from recmerge.rankers.per_domain import Numbers, Places
from recmerge.rankers.protocol import Ranker, RankerSettings, Scores, empty_scores, loading, read_card, training_domains, write_card
from recmerge.rankers.sequential.batches import ASKED_AT_ONCE, Rows, history_batches
from recmerge.rankers.sequential.model import SequentialModel
from recmerge.rankers.sequential.purchases import Asked, Purchases, number, numbers_of, read_purchases, read_questions, validation_questions
from recmerge.rankers.sequential.settings import SequentialSettings
from recmerge.rankers.sequential.training import Outcome, train


@dataclass(frozen=True)
class Fitted:
    """What is known of one domain.

    Args:
        items: Item id to its number, 1 to I.
        users: User id to its number, 1 to U; empty where a model does not know users.
        sizes: What the model is built from besides the settings.
        model: In eval mode.
    """

    items: Places
    users: Places
    sizes: dict[str, int]
    model: SequentialModel


class TaughtRanker(Ranker):
    """A ranker around a torch model of each domain, which is taught by steps and kept as it ranked validation users best.

    Domains are learnt one by one. The purchases of the training events are learnt from; validation events decide when to stop, and
    nothing else.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    settings_class: ClassVar[type[RankerSettings]] = SequentialSettings
    is_slow = True
    stops_on_validation = True
    knows_users: ClassVar[bool] = False

    settings: Any

    def __init__(self, settings: RankerSettings | None = None, *, seed: int = 42) -> None:
        super().__init__(settings, seed=seed)
        self.fitted: dict[str, Fitted] = {}

    @abstractmethod
    def build(self, sizes: Mapping[str, int]) -> SequentialModel:
        """Make an untrained model.

        Args:
            sizes: `n_items`, `n_users` and what `measure` adds.

        Returns:
            The model, its weights drawn from torch's own generator.
        """

    def measure(self, purchases: Purchases) -> dict[str, int]:
        """Return what `build` needs to know of a domain besides the settings: by default its numbers of items and users."""
        return {"n_items": len(purchases.items), "n_users": len(purchases.users) if self.knows_users else 0}

    def furnish(self, model: SequentialModel, purchases: Purchases) -> None:
        """Fill what a model knows of a domain before it is trained, e.g. buffers of features; by default nothing."""

    def teach(self, model: SequentialModel, purchases: Purchases) -> dict[str, Any]:
        """Train a model; one with stages of its own does it in its own way.

        Args:
            model: Built, furnished, on its device.
            purchases: The domain's.

        Returns:
            Facts for the run's manifest.
        """
        return self.trained(model, purchases).facts()

    def trained(self, model: SequentialModel, purchases: Purchases, epochs: int | None = None, *, judge_first: bool = False, **more: Any) -> Outcome:
        """Train by the settings' schedule, with validation; see `train` for what more can be given.

        Args:
            model: On its device.
            purchases: The domain's.
            epochs: At most; None: the settings'.
            judge_first: See `Schedule`.
            **more: Passed on to `train`.

        Returns:
            What happened.
        """
        rows = Rows(purchases, self.settings.max_history, every_place=model.every_place, device=device_of(model))
        asked = validation_questions(purchases, self.settings.eval_users)
        schedule = replace(self.settings.schedule(epochs), judge_first=judge_first)
        return train(model, rows, schedule, asked, seed=self.seed, say=self.say, **more)

    def teach_together(self, shops: Sequence[Purchases]) -> dict[str, torch.Tensor]:
        """Train what all domains of a set share, before each is learnt by itself; for a ranker that `learns_together`.

        Args:
            shops: The domains, by name.

        Returns:
            Weights by their name in the model, put into every domain's model before it is trained; by default none.
        """
        return {}

    def notes(self) -> dict[str, Any]:
        """Return JSON-like values that `save` writes besides; by default none."""
        return {}

    def recall(self, card: Mapping[str, Any]) -> None:
        """Check what `notes` wrote, before a model is built; by default nothing.

        Args:
            card: All that `save` wrote as JSON.

        Raises:
            ArtifactError: The models cannot be built here.
        """

    def fit(self, training: Domain | TrainingSet) -> None:
        """Learn what the domains share, if anything, and then domain by domain."""
        self.facts, self.fitted = {}, {}
        shops = [read_purchases(domain) for domain in training_domains(training)]
        with seeded(self.seed):
            shared = self.teach_together(shops)
        for purchases in shops:
            self.fitted[purchases.domain.name] = self.learn(purchases, shared)

    def learn(self, purchases: Purchases, shared: Mapping[str, torch.Tensor]) -> Fitted:
        """Learn one domain, beginning with what all share."""
        sizes = self.measure(purchases)
        with seeded(self.seed):
            model = self.build(sizes).to(pick_device(self.settings.device))
            self.furnish(model, purchases)
            model.load_state_dict(shared, strict=False)
            facts = self.teach(model, purchases)
        n_weights = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.facts.setdefault("training", {})[purchases.domain.name] = {**facts, "parameters_trained": n_weights, "device": device_of(model).type}
        return Fitted(purchases.items, purchases.users if self.knows_users else {}, sizes, model)

    def save(self, folder: Path) -> None:
        """Write ids, sizes and settings as JSON and weights as safetensors, a file for each domain."""
        domains = {
            name: {"items": list(fitted.items), "users": list(fitted.users), "sizes": fitted.sizes, "weights": _weights_file(place)}
            for place, (name, fitted) in enumerate(sorted(self.fitted.items()))
        }
        known = {"seed": self.seed, "settings": self.settings.model_dump(mode="json", exclude={"device"}), "domains": domains}
        write_card(folder, self.name, known | self.notes())
        for name, told in domains.items():
            save_file({key: t.contiguous().cpu() for key, t in self.fitted[name].model.state_dict().items()}, folder / str(told["weights"]))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; the device is the one that the settings name now.

        Args:
            folder: Where.

        Raises:
            ArtifactError: A file is missing, cannot be read, or does not fit the other.
        """
        card = read_card(folder, self.name)
        fitted = {}
        with loading(folder):
            self.seed, self.settings = int(card["seed"]), self.settings_class.model_validate({**card["settings"], "device": self.settings.device})
            domains = dict(card["domains"])
        self.recall(card)
        for name, told in domains.items():
            path = folder / str(told["weights"])
            with loading(path):
                fitted[name] = self._loaded(path, told)
        self.fitted = fitted

    def _loaded(self, path: Path, told: Mapping[str, Any]) -> Fitted:
        sizes = {key: int(value) for key, value in told["sizes"].items()}
        with seeded(self.seed):
            model = self.build(sizes)
        try:
            model.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise ValueError(f"the weights do not fit the card: {error}".splitlines()[0]) from error
        return Fitted(number(told["items"]), number(told["users"]), sizes, model.to(pick_device(self.settings.device)).eval())


class SequentialRanker(TaughtRanker):
    """A ranker whose scores are products of what a sequence encoder expects next with the vectors of items.

    Items outside the catalogue share one cold vector; users without a known purchase score 0 throughout.

    Args:
        settings: None: the defaults.
        seed: Of the first weights, dropout, negatives and the order of batches.
    """

    @torch.inference_mode()
    def score(self, examples: Sequence[Example]) -> Scores:
        """Return (B, C) scores; domains that were not learnt score 0."""
        scores = empty_scores(examples)
        for fitted, rows, asked, vectors in self._by_domain(examples):
            for found, batch in history_batches(asked, self.settings.max_history, ASKED_AT_ONCE, vectors.device):
                users = fitted.model.users(batch).double()
                candidates = torch.from_numpy(asked.candidates[found]).to(vectors.device)
                scores[rows[found]] = (users[:, None, :] * vectors[candidates]).sum(-1).cpu().numpy()  # not BLAS: equal items must tie
        return scores

    @torch.inference_mode()
    def score_all(self, examples: Sequence[Example], items: Sequence[str]) -> Scores:
        """Return (B, I) scores of the same I items for each of B users, as `score` gives them."""
        scores = np.zeros((len(examples), len(items)))
        for fitted, rows, asked, vectors in self._by_domain(examples):
            wanted = vectors[torch.from_numpy(numbers_of(fitted.items, items)).to(vectors.device)]
            distinct, places = torch.unique(wanted, dim=0, return_inverse=True)  # BLAS may give equal columns unlike last digits: equal items must tie
            for found, batch in history_batches(asked, self.settings.max_history, ASKED_AT_ONCE, vectors.device):
                scores[rows[found]] = (fitted.model.users(batch).double() @ distinct.T)[:, places].cpu().numpy()
        return scores

    def _by_domain(self, examples: Sequence[Example]) -> Iterator[tuple[Fitted, Numbers, Asked, torch.Tensor]]:
        """Yield of each learnt domain that is asked about what is known of it, its rows of the examples, their questions, and the items' vectors."""
        for name, fitted in self.fitted.items():
            rows = np.asarray([row for row, example in enumerate(examples) if example.domain == name], dtype=np.int64)
            if len(rows):
                yield fitted, rows, read_questions([examples[row] for row in rows], fitted.items, fitted.users), fitted.model.scored().double()


class seeded:  # noqa: N801 - reads as what it does: `with seeded(7):`
    """Let torch draw from a seed inside the context, and go on outside as if nothing had been drawn.

    Args:
        seed: Any.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.fork = torch.random.fork_rng()

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *error: Any) -> None:
        self.fork.__exit__(*error)


def device_of(model: SequentialModel) -> torch.device:
    """Return where a model is."""
    return next(model.parameters()).device


def _weights_file(place: int) -> str:
    return f"weights-{place}.safetensors"
