"""What every ranker can do, whatever it is made of."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError

from recmerge.data.dataset import Domain, Example
from recmerge.data.training_set import TrainingSet
from recmerge.errors import ArtifactError

Scores = npt.NDArray[np.float64]

RANKER_FILE = "ranker.json"
_FORMAT = 2
TRAIN_AGAIN = "train it again with `recmerge train NAME --ranker R`"


class RankerSettings(BaseModel):
    """Base of a ranker's settings: typed, frozen, all with defaults, and a mistyped name cannot pass."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Ranker(Protocol):
    """Learns from training events and scores stored candidates.

    Fitting again starts afresh. Scores of one user do not depend on the other users in the call, nor on the order of the
    candidates. Equal seeds, settings and events give equal scores.

    Args:
        settings: Of the ranker's own `settings_class`; None: the defaults.
        seed: Of whatever it draws.
    """

    name: ClassVar[str]
    settings_class: ClassVar[type[RankerSettings]] = RankerSettings
    needs: ClassVar[tuple[str, ...]] = ()  # modules of the extra `floors`
    is_slow: ClassVar[bool] = False  # to fit: it is trained once, by `recmerge train`, and then asked
    stops_on_validation: ClassVar[bool] = False  # validation events decide how long it is trained
    learns_together: ClassVar[bool] = False  # the domains of a set teach each other

    settings: Any
    seed: int
    facts: dict[str, Any]  # what `fit` counted, for the run's manifest
    say: Callable[[str], None]  # tells the user how a long fit goes on

    def __init__(self, settings: RankerSettings | None = None, *, seed: int = 42) -> None:
        self.settings = self.settings_class() if settings is None else settings
        self.seed = seed
        self.facts = {}
        self.say = lambda text: None

    def fit(self, training: Domain | TrainingSet) -> None:
        """Learn from training events alone; test events are never looked at, validation events only to know when to stop.

        Args:
            training: One domain, or a set of several.
        """

    def score(self, examples: Sequence[Example]) -> Scores:
        """Score every candidate of every example.

        Args:
            examples: B users with C candidates each, all of one C. Items never trained on and empty histories are allowed.

        Returns:
            (B, C) finite values, higher is better, in the order of each example's candidates.
        """

    def save(self, folder: Path) -> None:
        """Write the fitted ranker as JSON and safetensors.

        Args:
            folder: An existing folder.
        """

    def load(self, folder: Path) -> None:
        """Become the ranker that `save` wrote.

        Args:
            folder: Where.

        Raises:
            ArtifactError: A file is missing, cannot be read, or is another ranker's.
        """


@runtime_checkable
class CatalogueRanker(Protocol):
    """What a ranker can do besides, if it can score a whole catalogue at a bearable cost; `isinstance` tells.

    Full ranking is possible with such a ranker and with no other.
    """

    def score_all(self, examples: Sequence[Example], items: Sequence[str]) -> Scores:
        """Score the same items for every example, whose own candidates are not looked at.

        Args:
            examples: B users. The answer holds B * I numbers of 8 bytes: ask for some hundred users at a time.
            items: I item ids, e.g. all of a domain's; items never trained on are allowed.

        Returns:
            (B, I) what `score` says of the same user and item, in the order of `items`.
        """


def training_domains(training: Domain | TrainingSet) -> list[Domain]:
    """Return the domains of a training set, by name; a domain alone is a set of one."""
    if isinstance(training, Domain):
        return [training]
    return [training.domains[name] for name in sorted(training.domains)]


def empty_scores(examples: Sequence[Example]) -> Scores:
    """Return zeros of the shape `score` must answer with.

    Args:
        examples: B users with C candidates each.

    Returns:
        (B, C); (0, 0) for no users.

    Raises:
        ValueError: The examples have different numbers of candidates.
    """
    sizes = {len(e.candidates) for e in examples}
    if len(sizes) > 1:
        raise ValueError(f"examples have {min(sizes)} to {max(sizes)} candidates; they must have equally many")
    return np.zeros((len(examples), sizes.pop() if sizes else 0))


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with a saved ranker's tensors, or does not fit its card, into one error that names the file.

    Args:
        path: The file that is read inside the context.

    Raises:
        ArtifactError: Something is.
    """
    try:
        yield
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix=TRAIN_AGAIN) from error


def write_card(folder: Path, name: str, settings: dict[str, Any]) -> None:
    """Write `ranker.json`, which says what the folder holds.

    Args:
        folder: An existing folder.
        name: The ranker's name.
        settings: JSON-like values that `load` needs.
    """
    card = {"format": _FORMAT, "ranker": name, "settings": settings}
    (folder / RANKER_FILE).write_text(json.dumps(card, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")


def read_card(folder: Path, name: str) -> dict[str, Any]:
    """Read `ranker.json`.

    Args:
        folder: A folder that `save` wrote.
        name: The ranker it must hold.

    Returns:
        Its settings.

    Raises:
        ArtifactError: It is missing, cannot be read, or is another ranker's.
    """
    path = folder / RANKER_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        form, found, settings = card["format"], card["ranker"], dict(card["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix=TRAIN_AGAIN) from error
    if form != _FORMAT:
        raise ArtifactError(f"{path} has format {form}, this recmerge reads format {_FORMAT}", fix=TRAIN_AGAIN)
    if found != name:
        raise ArtifactError(f"{path} holds ranker '{found}', not '{name}'", fix=f"name the ranker {found}, or train {name}")
    return settings
