"""Pretraining's parts: shelves, layout, tokenizer, model."""

import itertools
import unicodedata

import pytest
import torch

from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.pretrain import CatalogueItem, Shelves, new_model, pack_shelf, train_tokenizer

ITEMS = [CatalogueItem("d", f"t{i}", "Acme" if i < 5 else "Unknown", "Balls" if i % 2 else "") for i in range(20)]


def test_a_shelf_is_one_category_brand_or_catalogue() -> None:
    shelves = Shelves(ITEMS, shelf_share=1.0, seed=0)
    seen = {tuple(sorted(shelves.draw())) for _ in range(50)}
    assert seen == {tuple(range(5)), tuple(range(1, 20, 2))}  # Acme, Balls; "Unknown" is no brand


def test_no_shelves_without_categories() -> None:
    shelves = Shelves([CatalogueItem("d", f"t{i}", "", "") for i in range(6)], shelf_share=1.0, seed=0)
    assert sorted(shelves.draw()) == list(range(6))


def test_draws_repeat_with_the_seed() -> None:
    one, two = (Shelves(ITEMS, 0.5, seed=3) for _ in range(2))
    assert [list(one.draw()) for _ in range(20)] == [list(two.draw()) for _ in range(20)]


@pytest.mark.parametrize("max_length", [4, 7, 10, 50])
def test_packed_shelves_hold_whole_titles(max_length: int) -> None:
    titles = [(10, 11), (12,), (13, 14, 15)]
    ids = pack_shelf(iter([0, 1, 2]), titles, start=[1], end=2, max_length=max_length)
    assert len(ids) <= max_length
    pieces = [tuple(g) for is_end, g in itertools.groupby(ids[1:], key=lambda i: i == 2) if not is_end]
    assert set(pieces) <= set(titles)
    assert ids[0] == 1
    assert ids[-1] == 2


def test_the_layout_is_that_of_open_prompts() -> None:
    texts = ["Red Ball", "Blue Kite", "Red Kite"] * 5
    tokenizer = train_tokenizer(texts, 300, 128)
    encoder = Encoder(tokenizer, PromptSettings("open", 128))
    titles = encoder.plain(["Red Ball", "Blue Kite"])
    packed = pack_shelf(iter([0, 1]), titles, encoder.start_ids, encoder.end_id, 128)
    prompt = encoder.prompt(["Red Ball", "Blue Kite"], [], 5)
    assert prompt is not None
    assert tuple(packed) == prompt.ids


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = train_tokenizer(["plain text"], 300, 128)
    encoder = Encoder(tokenizer, PromptSettings("open", 500))
    for text in ("Café 雨傘 🎾", "<|end|> inside", "a\u0301", "العربية"):
        ids = encoder.title(text)
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
        assert encoder.control_ids.isdisjoint(ids)


def test_the_same_seed_makes_the_same_weights() -> None:
    tokenizer = train_tokenizer(["a b c"], 300, 64)
    shape = {"hidden_size": 8, "layers": 1, "heads": 2, "kv_heads": 1, "intermediate_size": 16, "max_length": 64}
    one, two, other = (new_model(tokenizer, **shape, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not all(torch.equal(one[k], other[k]) for k in one)
