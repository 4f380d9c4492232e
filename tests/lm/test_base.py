"""What a damaged or unusual base is told by: one line, not random weights, empty prompts or a bug."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from recmerge.errors import ArtifactError
from recmerge.lm.base import find, load_model, load_tokenizer
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.lm.lora import can_be_merged, new_lora

CPU = torch.device("cpu")


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def load(folder: Path) -> Any:
    return load_model(find(str(folder)), CPU, torch.float32)


def test_missing_weights_are_refused(base: Path) -> None:
    load(base)
    weights = load_file(base / "model.safetensors")
    gone = next(name for name in sorted(weights) if "mlp" in name)
    save_file({name: t for name, t in weights.items() if name != gone}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match=f"lack 1 that its config.json asks for, e.g. {gone}"):
        load(base)


def test_a_folder_without_a_tokenizer_is_refused(base: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"):
        (base / name).unlink(missing_ok=True)
    with pytest.raises(ArtifactError):
        load_tokenizer(find(str(base)))


@pytest.mark.parametrize("text", [b'{"a": 1}}', b'{"a": "\xe4"}', b"[]"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_broken_file_is_named(base: Path, name: str, text: bytes) -> None:
    (base / name).write_bytes(text)
    with pytest.raises(ArtifactError, match=name):
        load_tokenizer(find(str(base)))


def test_a_template_without_a_system_turn_has_its_text_before_the_users(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    refuse = "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    tokenizer.chat_template = "{% for m in messages %}" + refuse + "<{{ m.role }}>{{ m.content }}{% endfor %}"
    encoder = Encoder(tokenizer, PromptSettings("listwise", 900))
    prompt = encoder.prompt(["a mat"], ["a ball", "a lamp"], 9)
    assert prompt is not None
    text = tokenizer.decode(prompt.ids)
    assert text.startswith("<user>")
    assert "a lamp" in text
    tokenizer.chat_template = "{% for m in messages %}"
    with pytest.raises(ArtifactError, match="chat template cannot be used"):
        Encoder(tokenizer, PromptSettings("listwise", 900)).prompt(["a mat"], ["a ball"], 9)


@pytest.mark.parametrize(
    ("tied", "modules", "can"), [(True, ["lm_head"], False), (True, ["embed_tokens"], False), (True, ["q_proj"], True), (False, ["lm_head"], True)]
)
def test_a_change_of_shared_weights_is_not_merged(tiny_base: Path, tied: bool, modules: list[str], can: bool) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base, tie_word_embeddings=tied)
    lora = new_lora(model, rank=2, alpha=4, dropout=0.0, target_modules=modules, use_rslora=False, init_seed=0)
    assert can_be_merged(lora) is can
