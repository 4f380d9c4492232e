"""Pretraining's parts: shelves, layout, tokenizer, model."""

import itertools
import random
import unicodedata

import pytest
import torch

from recmerge.lm.cores import one_core_each
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.fused_loss import linear_cross_entropy
from recmerge.lm.knowledge import measure_knowledge
from recmerge.lm.muon import Muon, orthogonal
from recmerge.lm.new_base import new_model, train_tokenizer
from recmerge.lm.pretrain import Reading, _Gradients, next_token_loss, pretrain
from recmerge.lm.shelves import CatalogueItem, Histories, Shelves, lay_out
from recmerge.runs import SilentReporter

ITEMS = [CatalogueItem("d", f"t{i}", "Acme" if i < 5 else "Unknown", "Balls" if i % 2 else "") for i in range(20)]


def test_a_shelf_is_one_category_brand_or_catalogue() -> None:
    shelves, rng = Shelves(ITEMS, shelf_share=1.0), random.Random(0)
    seen = {tuple(sorted(shelves.draw(rng))) for _ in range(50)}
    assert seen == {tuple(range(5)), tuple(range(1, 20, 2))}  # Acme, Balls; "Unknown" is no brand


def test_no_shelves_without_categories() -> None:
    shelves = Shelves([CatalogueItem("d", f"t{i}") for i in range(6)], shelf_share=1.0)
    assert sorted(shelves.draw(random.Random(0))) == list(range(6))


def test_histories_keep_their_order_and_length() -> None:
    histories = Histories([[5, 3, 9, 1], [7], [2, 4]], max_history=3)
    drawn = {tuple(histories.draw(random.Random(i))) for i in range(60)}
    assert drawn == {(5, 3, 9), (3, 9, 1), (2, 4)}  # a single event teaches nothing about what follows
    with pytest.raises(ValueError, match="two items"):
        Histories([[1]], 5)


@pytest.mark.parametrize("max_length", [4, 7, 10, 50])
def test_packed_shelves_hold_whole_titles(max_length: int) -> None:
    titles = [(10, 11), (12,), (13, 14, 15)]
    ids = lay_out([0, 1, 2], titles, start=[1], end=2, max_length=max_length)
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
    packed = lay_out([0, 1], titles, encoder.start_ids, encoder.end_id, 128)
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


def test_the_fused_loss_is_cross_entropy_with_its_gradients() -> None:
    torch.manual_seed(0)
    for rows, vocabulary in ((1, 5), (700, 3000), (2100, 1024)):  # one chunk, several, a last one that is short
        hidden, weight = torch.randn(rows, 8, requires_grad=True), torch.randn(vocabulary, 8, requires_grad=True)
        targets = torch.randint(0, vocabulary, (rows,))
        want = torch.nn.functional.cross_entropy(hidden @ weight.T, targets)
        wanted = torch.autograd.grad(want * 3, (hidden, weight))
        got = linear_cross_entropy(hidden, weight, targets)
        found = torch.autograd.grad(got * 3, (hidden, weight))
        assert torch.allclose(got, want, atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-6, rtol=1e-4) for a, b in zip(found, wanted, strict=True))


def test_a_frozen_output_layer_gets_no_gradient() -> None:
    hidden, weight = torch.randn(4, 8, requires_grad=True), torch.randn(9, 8)
    linear_cross_entropy(hidden, weight, torch.tensor([1, 2, 3, 4])).backward()
    assert hidden.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_orthogonal_brings_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3


def test_muon_steps_as_torchs_own() -> None:
    torch.manual_seed(2)
    start, gradients = torch.randn(24, 10), [torch.randn(24, 10) for _ in range(4)]
    ends = []
    for kind in (Muon, torch.optim.Muon):
        p = torch.nn.Parameter(start.clone())
        optimizer = kind([p], lr=0.1, momentum=0.95, weight_decay=0.02)
        for gradient in gradients:
            p.grad = gradient.clone()
            optimizer.step()
        ends.append(p.detach())
    moved = float((ends[1] - start).abs().max())
    assert float((ends[0] - ends[1]).abs().max()) < 0.03 * moved  # theirs rounds to bfloat16
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1)


@pytest.fixture(scope="module")
def learnt() -> tuple[torch.nn.Module, Reading]:
    """A model that has read two titles until it knows them."""
    tokenizer = train_tokenizer(["red ball", "blue kite"], 300, 64)
    encoder = Encoder(tokenizer, PromptSettings("open", 64))
    model = new_model(tokenizer, hidden_size=16, layers=1, heads=2, kv_heads=2, intermediate_size=32, max_length=64, seed=0)
    shelves = Shelves([CatalogueItem("d", "red ball"), CatalogueItem("d", "blue kite")], 0.0)
    reading = Reading(encoder.plain(["red ball", "blue kite"]), [(shelves, 1.0)], encoder.start_ids, encoder.end_id, 64)
    settings = {
        "steps": 60,
        "batch_size": 4,
        "micro_batch_size": 2,
        "learning_rate": 0.02,
        "muon_rate": 0.05,
        "warmup_ratio": 0.1,
        "weight_decay": 0.0,
        "seed": 0,
    }
    result = pretrain(model, reading, settings, SilentReporter())
    assert result.curve[-1][1] < 0.5 < 4 < result.curve[0][1]
    return model, reading


def test_the_loss_is_that_of_transformers(learnt: tuple[torch.nn.Module, Reading]) -> None:
    model, reading = learnt
    rows = [reading.draw(random.Random(0)), [5, 6, 7]]
    longest = max(map(len, rows))
    ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
    labels = torch.tensor([r + [-100] * (longest - len(r)) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    want = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    assert torch.allclose(next_token_loss(model, rows), want, atol=1e-5)


def test_knowledge_is_what_greedy_decoding_completes(learnt: tuple[torch.nn.Module, Reading]) -> None:
    model, reading = learnt
    known = measure_knowledge(model, reading.titles, reading.start_ids, reading.end_id)
    assert (known.titles, known.completed) == (2, 1.0)
    unknown = [(9, 8, 7, 6), (30, 20, 10)]
    assert measure_knowledge(model, unknown, reading.start_ids, reading.end_id).completed == 0.0
    title = reading.titles[0]
    begun = torch.tensor([[*reading.start_ids, *title[: max(1, len(title) // 2)]]])
    written = model.generate(begun, attention_mask=torch.ones_like(begun), do_sample=False, max_new_tokens=20, eos_token_id=reading.end_id, pad_token_id=0)
    assert tuple(written[0, len(reading.start_ids) :].tolist()) == (*title, reading.end_id)


def test_parts_add_up_to_the_whole_batch_on_any_number_of_cores(learnt: tuple[torch.nn.Module, Reading]) -> None:
    model, reading = learnt
    rng, threads = random.Random(1), torch.get_num_threads()
    rows = [reading.draw(rng)[: 3 + i] for i in range(7)]
    model.zero_grad()
    next_token_loss(model, rows).backward()
    want = [p.grad.clone() for p in model.parameters()]
    found = []
    try:
        for cores in (1, 2):
            torch.set_num_threads(cores)
            model.zero_grad()
            with one_core_each(torch.device("cpu")) as side_by_side:
                loss = _Gradients(model, 3, side_by_side).find(rows)
            assert torch.get_num_threads() == cores
            found.append([p.grad.clone() for p in model.parameters()])
    finally:
        torch.set_num_threads(threads)
        model.zero_grad()
    assert loss == pytest.approx(next_token_loss(model, rows).item(), abs=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found[0], want, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
