"""Write a data set as RecBole's atomic files."""

import re
from pathlib import Path
from urllib.parse import quote

import polars as pl

from recmerge.data.dataset import Domain, examples
from recmerge.data.exports import Written
from recmerge.data.titles import plain_line
from recmerge.data.training_set import TrainingSet
from recmerge.names import BRAND, CATEGORY, DOMAIN, ITEM_ID, POSITION, SPLIT, TARGET, TEST, TIMESTAMP, TITLE, TRAIN, USER_ID, VALID

MAX_LIST = 50  # RecBole's MAX_ITEM_LIST_LENGTH; it keeps the oldest of a longer list
_UNSAFE = re.compile(r'[\s"%\x00-\x1f\x7f]')
# pandas, by which RecBole reads, takes these words for missing values.
_MISSING = {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"}
_MISSING |= {"<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
_SETTINGS = """\
# RecBole settings for the questions of this folder: each row of <domain>.train.inter, .valid.inter and .test.inter asks for the item behind a
# list of items. Use: run_recbole(model="SASRec", dataset="{name}", config_file_list=["{name}/{name}.yaml"], config_dict={{"data_path": "."}})
USER_ID_FIELD: user_id
ITEM_ID_FIELD: item_id
benchmark_filename: [train, valid, test]
load_col:
  inter: [user_id, item_id_list, item_id]
alias_of_item_id: [item_id_list]
MAX_ITEM_LIST_LENGTH: {max_list}
eval_args: {{group_by: user, order: TO, split: {{LS: valid_and_test}}, mode: full}}
"""


def export_recbole(training_set: TrainingSet, folder: Path) -> Written:
    """Write RecBole's atomic files into a folder per domain.

    `<domain>.inter` holds all events, and the split of each. RecBole's own leave-one-out gives the same split only where ours is
    leave-one-out, and only ordered by `position` (TIME_FIELD): times are days, often equal or unknown. Whatever the split, exactly our
    training rows and questions are in `<domain>.train.inter`, `.valid.inter` and `.test.inter`, for sequential models: the newest 50 items
    of a history and the item behind it; `<domain>.yaml` has the settings for these. The published profile trains on its validation rows.
    RecBole draws candidates of its own; ours are not in the files. `<domain>.item` holds titles, brands and categories.

    Source: RecBole 1.2's documentation, "Atomic Files" and "Benchmark file"; its reader is pandas, so quotes are written as CSV has them.
    An id that the reader would split or take for missing is percent-encoded (`urllib.parse.unquote` gives it back); a title,
    brand or category that is such a word has a space behind it.

    Args:
        training_set: With its domains.
        folder: An existing folder.

    Returns:
        What was written; rows are events.
    """
    written = Written()
    for name, domain in sorted(training_set.domains.items()):
        target = folder / name
        target.mkdir()
        safe = {old: atomic_token(old) for old in (*domain.users[USER_ID], *domain.items[ITEM_ID])}
        written.renamed += sum(old != new for old, new in safe.items())
        written.rows += domain.events.height
        _write(target / f"{name}.inter", _events(domain, safe))
        _write(target / f"{name}.item", _items(domain, safe))
        for split in (TRAIN, VALID, TEST):
            rows = training_set.rows.filter(pl.col(DOMAIN) == name)
            _write(target / f"{name}.{split}.inter", _questions(domain, rows, split, safe))
        (target / f"{name}.yaml").write_text(_SETTINGS.format(name=name, max_list=MAX_LIST), encoding="utf-8")
    return written


def atomic_token(text: str) -> str:
    """Return an id as one token: percent-encoded where RecBole's reader would split it or take it for missing.

    Args:
        text: Any id.

    Returns:
        The same text, or one that `urllib.parse.unquote` turns into it; different ids stay different.
    """
    if text in _MISSING:
        return f"%{ord(text[0]):02X}{text[1:]}"
    return _UNSAFE.sub(lambda match: quote(match[0], safe=""), text)


def _events(domain: Domain, safe: dict[str, str]) -> pl.DataFrame:
    times = [] if domain.events[TIMESTAMP].is_null().all() else [pl.col(TIMESTAMP).cast(pl.Float64).alias("timestamp:float")]
    return domain.events.select(
        pl.col(USER_ID).replace_strict(safe).alias("user_id:token"),
        pl.col(ITEM_ID).replace_strict(safe).alias("item_id:token"),
        *times,
        pl.col(POSITION).cast(pl.Float64).alias("position:float"),
        pl.col(SPLIT).alias("split:token"),
    )


def _items(domain: Domain, safe: dict[str, str]) -> pl.DataFrame:
    plain = {column: [_word(plain_line(text)) for text in domain.items[column]] for column in (TITLE, BRAND, CATEGORY)}
    return pl.DataFrame(
        {
            "item_id:token": domain.items[ITEM_ID].replace_strict(safe),
            "title:token_seq": plain[TITLE],
            "brand:token": plain[BRAND],
            "category:token_seq": plain[CATEGORY],
        }
    )


def _word(text: str) -> str:
    return f"{text} " if text in _MISSING else text


def _questions(domain: Domain, rows: pl.DataFrame, split: str, safe: dict[str, str]) -> pl.DataFrame:
    if split == TRAIN:
        asked = [(user, domain.sequences[user][:position], target) for user, position, target in rows.select(USER_ID, POSITION, TARGET).iter_rows()]
    else:
        asked = [(e.user_id, e.history, e.target) for e in examples(domain, split)]
    return pl.DataFrame(
        {
            "user_id:token": [safe[user] for user, _, _ in asked],
            "item_id_list:token_seq": [" ".join(safe[item] for item in history[-MAX_LIST:]) for _, history, _ in asked],
            "item_id:token": [safe[target] for _, _, target in asked],
        }
    )


def _write(path: Path, frame: pl.DataFrame) -> None:
    frame.write_csv(path, separator="\t", quote_style="necessary", float_precision=1)
