"""Write a data set in the formats of other tools."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recmerge.data.building import PUBLISHED
from recmerge.data.dataset import Domain, examples
from recmerge.data.prompts import Chat, render_answer, render_listwise, render_published
from recmerge.data.titles import plain_line
from recmerge.data.training_set import TrainingSet
from recmerge.names import BRAND, CATEGORY, DOMAIN, ITEM_ID, POSITION, SPLIT, TIMESTAMP, TITLE, TRAIN, USER_ID, VALID

_SLICE = 10_000


@dataclass(frozen=True)
class Question:
    """One rendered training or validation row."""

    chat: Chat
    answer: str


def questions(training_set: TrainingSet, split: str) -> Iterator[Question]:
    """Render rows as texts.

    Args:
        training_set: With its domains.
        split: "train": the training rows in their order; "valid": each domain's validation questions, by user.

    Yields:
        Prompts in the listwise style, or for a published profile in the published one.
    """
    if split == VALID:
        for _, domain in sorted(training_set.domains.items()):
            for example in examples(domain, VALID):
                yield _question(domain, example.history, example.candidates, (example.target,))
        return
    published = "answer" in training_set.rows.columns
    columns = [DOMAIN, USER_ID, POSITION, "candidates", "answer" if published else "target"]
    for part in training_set.rows.select(columns).iter_slices(_SLICE):
        for name, user, position, listed, answer in part.iter_rows():
            domain = training_set.domains[name]
            history = domain.sequences[user][:position]
            yield _question(domain, history, tuple(listed), tuple(answer) if published else (answer,))


def _question(domain: Domain, history: tuple[str, ...], candidates: tuple[str, ...], answer: tuple[str, ...]) -> Question:
    titles = domain.titles
    render = render_published if domain.profile == PUBLISHED else render_listwise
    chat = render([titles[i] for i in history], [titles[i] for i in candidates])
    return Question(chat, render_answer([titles[i] for i in answer]))


def splits_of(training_set: TrainingSet) -> tuple[str, ...]:
    """Return the splits worth exporting: the published profile trains on its validation rows, so it has no other."""
    published = any(d.profile == PUBLISHED for d in training_set.domains.values())
    return (TRAIN,) if published else (TRAIN, VALID)


def export_trl(training_set: TrainingSet, folder: Path) -> None:
    """Write TRL's conversational prompt-completion rows: train.jsonl and valid.jsonl.

    Args:
        training_set: With its domains.
        folder: An existing folder.
    """
    for split in splits_of(training_set):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as f:
            for q in questions(training_set, split):
                prompt = [{"role": "system", "content": q.chat.system}, {"role": "user", "content": q.chat.user}]
                f.write(_json({"prompt": prompt, "completion": [{"role": "assistant", "content": q.answer}]}) + "\n")


def export_llamafactory(training_set: TrainingSet, folder: Path) -> None:
    """Write LLaMA-Factory's alpaca files and the dataset_info.json that registers them.

    Args:
        training_set: With its domains.
        folder: An existing folder.
    """
    info = {}
    for split in splits_of(training_set):
        name = f"{training_set.name}_{split}"
        with (folder / f"{name}.json").open("w", encoding="utf-8") as f:
            f.write("[")
            for i, q in enumerate(questions(training_set, split)):
                f.write(",\n" if i else "\n")
                f.write(_json({"instruction": q.chat.user, "input": "", "output": q.answer, "system": q.chat.system}))
            f.write("\n]\n")
        columns = {"prompt": "instruction", "query": "input", "response": "output", "system": "system"}
        info[name] = {"file_name": f"{name}.json", "formatting": "alpaca", "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def export_recbole(training_set: TrainingSet, folder: Path) -> None:
    """Write RecBole's atomic files, <domain>/<domain>.inter and .item, whose leave-one-out split is ours.

    Order RecBole's interactions by `position`: times are days, and often equal or unknown.

    Args:
        training_set: With its domains.
        folder: An existing folder.
    """
    for name, domain in sorted(training_set.domains.items()):
        target = folder / name
        target.mkdir()
        events = domain.events.select(
            pl.col(USER_ID).alias("user_id:token"),
            pl.col(ITEM_ID).alias("item_id:token"),
            pl.col(TIMESTAMP).cast(pl.Float64).alias("timestamp:float"),
            pl.col(POSITION).cast(pl.Float64).alias("position:float"),
            pl.col(SPLIT).alias("split:token"),
        )
        # One line a field: RecBole reads no quotes.
        plain = {column: [plain_line(text) for text in domain.items[column]] for column in (TITLE, BRAND, CATEGORY)}
        items = pl.DataFrame(
            {
                "item_id:token": domain.items[ITEM_ID],
                "title:token_seq": plain[TITLE],
                "brand:token": [brand.replace(" ", "_") for brand in plain[BRAND]],
                "category:token_seq": plain[CATEGORY],
            }
        )
        events.write_csv(target / f"{name}.inter", separator="\t", quote_style="never", float_precision=1)
        items.write_csv(target / f"{name}.item", separator="\t", quote_style="never")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


FORMATS: dict[str, Callable[[TrainingSet, Path], None]] = {
    "llamafactory": export_llamafactory,
    "recbole": export_recbole,
    "trl": export_trl,
}
