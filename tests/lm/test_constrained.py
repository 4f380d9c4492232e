"""Generation that can write nothing but candidates, against every answer scored alone."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from recmerge.lm.backend import TransformersBackend
from recmerge.lm.constrained import Choices
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.parsing import chosen_answer
from recmerge.lm.title_tree import Question

TITLES = ["Mat", "Mat Pro", "Mat Pro 2", "Ball", "Bat"]  # each of the first three is the beginning of the next
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).eval()
    with torch.no_grad():
        made.lm_head.weight.mul_(20)  # so that some answers are likelier than others
    return made


def backend(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, style: str = "open") -> TransformersBackend:
    return TransformersBackend(model, Encoder(tokenizer, PromptSettings(style, 500)))


def asked(tokenizer: PreTrainedTokenizerFast, *texts: str) -> list[tuple[int, ...]]:
    return [tuple(tokenizer(text)["input_ids"]) for text in texts]


def by_score(asking: TransformersBackend, prompt: tuple[int, ...], titles: list[str]) -> list[str]:
    scores = asking.score([Question(prompt, tuple(asking.encoder.answer(t) for t in titles))])[0]
    return [titles[i] for i in np.argsort(-scores)]


def test_where_a_title_ends_and_another_goes_on(tokenizer: PreTrainedTokenizerFast) -> None:
    choices = Choices(TITLES, Encoder(tokenizer, PromptSettings("open", 500)))

    def follow(text: str) -> set[str]:
        return {tokenizer.decode(i) for i in choices.allowed(tokenizer(text, add_special_tokens=False)["input_ids"])}

    assert follow("") == {"M", "B"}
    assert follow("Ba") == {"l", "t"}
    assert follow("Mat") == {"<end>", " "}
    assert follow("Mat Pro 2") == {"<end>"}
    assert choices.longest == len("Mat Pro 2") + 1


def test_beams_for_all_titles_rank_as_scoring_does(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    asking = backend(model, tokenizer)
    prompts = asked(tokenizer, "one", "a longer one", "x")
    for prompt, places in zip(prompts, asking.choose(prompts, [TITLES] * 3, len(TITLES)), strict=True):
        assert [alike for (alike,) in places] == by_score(asking, prompt, TITLES)


def test_more_beams_than_titles_name_each_title_once(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    asking = backend(model, tokenizer)
    prompts = asked(tokenizer, "one", "two")
    found = asking.choose(prompts, [["Mat"], TITLES], 9)
    assert found[0] == [("Mat",)]
    assert [alike for (alike,) in found[1]] == by_score(asking, prompts[1], TITLES)


def test_greedy_takes_the_likeliest_token_that_is_allowed(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    asking = backend(model, tokenizer)
    for prompt in asked(tokenizer, "one", "two", "three"):
        choices, written = Choices(TITLES, asking.encoder), list[int]()
        while not written or written[-1] != asking.encoder.end_id:
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([[*prompt, *written]])).logits[0, -1]
            written.append(max(choices.allowed(written), key=lambda i: float(logits[i])))
        want = tokenizer.decode(written[:-1])
        assert asking.choose([prompt], [TITLES], 1) == [[(want,)]]


@pytest.mark.parametrize("beams", [1, 3])
def test_in_a_batch_as_alone(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, beams: int) -> None:
    asking = backend(model, tokenizer)
    prompts = asked(tokenizer, "one", "a much longer one", "three", "4")
    listed = [TITLES, ["Ball"], TITLES[::-1], ["Tent", "Ten", "Mat"]]
    together = asking.choose(prompts, listed, beams)
    assert together == [asking.choose([p], [t], beams)[0] for p, t in zip(prompts, listed, strict=True)]


def test_equal_titles_share_a_place(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    titles = ["Mat", "Ball", "Mat"]
    places = backend(model, tokenizer).choose(asked(tokenizer, "one"), [titles], 3)[0]
    parsed = chosen_answer(places, titles)
    assert parsed.places[0] == parsed.places[2]
    assert {parsed.places[0], parsed.places[1]} == {1, 2}
    assert not parsed.malformed


def test_titles_cut_to_equal_tokens_share_a_place(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    asking = TransformersBackend(model, Encoder(tokenizer, PromptSettings("open", 500, max_title_tokens=3)))
    assert asking.choose(asked(tokenizer, "one"), [["Mat Pro", "Mat"]], 1) == [[("Mat Pro", "Mat")]]


def test_published_answers_are_five_titles_none_twice(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    asking = backend(model, tokenizer, "published")
    titles = [*TITLES, "Mat||Ball", "Doll"]  # a title that looks like two
    for places in asking.choose(asked(tokenizer, "one", "two"), [titles, titles], 1):
        assert len(places) == len(set(places)) == 5
        assert {alike for (alike,) in places} <= set(titles)
    assert {alike for (alike,) in asking.choose(asked(tokenizer, "one"), [["Mat", "Ball"]], 1)[0]} == {"Mat", "Ball"}  # no more than there are


def test_a_models_own_settings_do_not_bend_the_search(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Qwen2-7B-Instruct comes with a penalty on repetition, which would punish titles that stand in the prompt."""
    asking, prompts = backend(model, tokenizer), asked(tokenizer, "Mat Ball Bat")
    free, chosen = asking.write(prompts, 8), asking.choose(prompts, [TITLES], 5)
    model.generation_config.repetition_penalty = 50.0
    try:
        assert (asking.write(prompts, 8), asking.choose(prompts, [TITLES], 5)) == (free, chosen)
    finally:
        model.generation_config.repetition_penalty = 1.0
