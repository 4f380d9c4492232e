"""The validation loss that tells when training has gone on for long enough."""

from collections.abc import Mapping
from typing import Any

from recmerge.data.dataset import Domain, examples
from recmerge.errors import ConfigError
from recmerge.lm.encoding import Encoder
from recmerge.lm.scoring import Scorer
from recmerge.lm.title_tree import Question
from recmerge.names import VALID

_BATCH = 32


class Validation:
    """Predicts the validation event of some buyers of every domain from what they bought before.

    Args:
        domains: What the adapter is trained on; each weighs the same, however large.
        encoder: As in training.
        n_users: Buyers of each domain, the first of the data's seeded order.
        buyers: Those that a domain is trained on, where these are not all.

    Raises:
        ConfigError: A domain's validation events are training rows (profile published), or none fits the prompt.
    """

    def __init__(self, domains: Mapping[str, Domain], encoder: Encoder, n_users: int, buyers: Mapping[str, frozenset[str]]) -> None:
        self.questions: dict[str, list[Question]] = {}
        self.pad_id = encoder.tokenizer.pad_token_id or 0
        for name, domain in sorted(domains.items()):
            if domain.profile == "published":
                raise ConfigError(f"patience: domain '{name}' is of profile published, which trains on its validation events", fix="set steps or epochs alone")
            chosen = buyers.get(name)
            asked = examples(domain, VALID, n_users if chosen is None else None)
            found = []
            for example in [e for e in asked if chosen is None or e.user_id in chosen][:n_users]:
                listed = [domain.titles[i] for i in example.candidates]
                answer = encoder.answers(listed)[example.candidates.index(example.target)]
                prompt = encoder.prompt([domain.titles[i] for i in example.history], listed, len(answer))
                if prompt is not None:
                    found.append(Question(prompt.ids, (answer,)))
            if not found:
                raise ConfigError(f"patience: no validation event of '{name}' fits into the prompt", fix="raise prompt.max_length")
            self.questions[name] = sorted(found, key=lambda q: len(q.prompt) + len(q.answers[0]))

    def losses(self, model: Any) -> dict[str, float]:
        """Measure a model; its mode, weights and random state stay as they are.

        Args:
            model: A causal language model, with or without adapter.

        Returns:
            By domain: nats per token of the answers, end tokens included.
        """
        training = model.training
        model.eval()
        scorer = Scorer(model, self.pad_id)
        scorer.prepare(max((questions[-1] for questions in self.questions.values()), key=lambda q: len(q.prompt) + len(q.answers[0])))
        found = {}
        for name, questions in self.questions.items():
            total = sum(float(s[0]) for i in range(0, len(questions), _BATCH) for s in scorer.score(questions[i : i + _BATCH]))
            found[name] = -total / sum(len(q.answers[0]) for q in questions)
        model.train(training)
        return found
