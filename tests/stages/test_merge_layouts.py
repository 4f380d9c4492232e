"""Adapters made elsewhere: what LLaMA-Factory, TRL and Unsloth leave in a folder, and other architectures; each merged and loaded by plain peft."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recmerge.lm.adapter_file import AdapterFile
from recmerge.runs import Workspace
from tests.merging.tiny import Q, V, peft_deltas, random_lora, tiny_qwen2
from tests.stages.test_merge import Cli, one_line

WEIGHTS = "adapter_model.safetensors"

# What each tool's adapter_config.json holds besides r, lora_alpha, target_modules and the base's name.
_PEFT_0_12 = {  # LLaMA-Factory 0.9.1
    "alpha_pattern": {},
    "auto_mapping": None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "rank_pattern": {},
    "revision": None,
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}
_UNSLOTH = {
    **_PEFT_0_12,
    "alora_invocation_tokens": None,
    "arrow_config": None,
    "auto_mapping": {"base_model_class": "Qwen2ForCausalLM", "parent_library": "transformers.models.qwen2.modeling_qwen2", "unsloth_fixed": True},
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "lora_bias": False,
    "peft_version": "0.18.1",
    "qalora_group_size": 16,
    "target_parameters": None,
    "trainable_token_indices": None,
    "use_qalora": False,
}
_TARGETS = ["q_proj", "v_proj"]


def with_files(folder: Path, *names: str) -> Path:
    """Put files beside an adapter whose content must not matter."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x80\x04N.")  # a pickle of None
    return folder


def llama_factory(folder: Path, seed: int) -> Path:
    random_lora(folder, seed, lora_alpha=4, **{**_PEFT_0_12, "target_modules": _TARGETS})
    files = ("trainer_state.json", "training_args.bin", "tokenizer.json", "all_results.json", "train_results.json", "training_loss.png")
    return with_files(folder, *files)


def trl_checkpoint(folder: Path, seed: int) -> Path:
    random_lora(folder, seed, lora_alpha=4, target_modules=_TARGETS)
    return with_files(folder, "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json", "chat_template.jinja")


def unsloth(folder: Path, seed: int) -> Path:
    attention = r"(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)"
    pattern = rf"(?:.*?(?:language|text).*?{attention}.*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{{1,}}\.(?:self_attn)\.(?:(?:q_proj|v_proj)))"
    random_lora(folder, seed, lora_alpha=4, **{**_UNSLOTH, "target_modules": pattern})
    return with_files(folder, "tokenizer.json", "special_tokens_map.json")


def old_peft(folder: Path, seed: int) -> Path:
    """peft before 0.3 put the adapter's name into keys, and wrote a config of few entries."""
    random_lora(folder, seed, key=".default", lora_alpha=4)
    config = json.loads((folder / "adapter_config.json").read_text())
    kept = ("peft_type", "task_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules")
    (folder / "adapter_config.json").write_text(json.dumps({k: config[k] for k in kept}))
    return folder


MAKERS: dict[str, Callable[[Path, int], Path]] = {"llama_factory": llama_factory, "trl": trl_checkpoint, "unsloth": unsloth, "old_peft": old_peft}


def dense(folder: Path, module: str) -> Any:
    adapter = AdapterFile(folder)
    b, a = adapter.factors(module)
    return adapter.scaling(module) * b @ a


@pytest.mark.parametrize("one", MAKERS)
@pytest.mark.parametrize("two", ["trl", "unsloth"])
def test_folders_of_other_tools_are_merged(workspace: Workspace, cli: Cli, one: str, two: str) -> None:
    paths = [MAKERS[one](workspace.root / "a", 1), MAKERS[two](workspace.root / "b", 2)]
    code, _, err = cli("merge", "--adapters", "a,b", "--name", "m", "--out", "out")
    assert code == 0, err
    for module in (Q, V):
        np.testing.assert_allclose(dense(workspace.root / "out", module), 0.5 * dense(paths[0], module) + 0.5 * dense(paths[1], module), rtol=1e-5, atol=1e-6)
    config = json.loads((workspace.root / "out/adapter_config.json").read_text())
    assert config["target_modules"] == (_TARGETS if "unsloth" not in (one, two) else [Q, V])  # a pattern becomes the modules it meant
    assert sorted(p.name for p in (workspace.root / "out").iterdir()) == ["README.md", "adapter_config.json", WEIGHTS, "recmerge.json"]


def test_a_quantised_base_under_another_name_has_to_be_allowed(workspace: Workspace, cli: Cli) -> None:
    random_lora(workspace.root / "a", 1, base_model_name_or_path="Qwen/Qwen2-7B-Instruct")
    random_lora(workspace.root / "b", 2, base_model_name_or_path="unsloth/qwen2-7b-instruct-bnb-4bit")
    words = ["merge", "--adapters", "a,b", "--name", "m"]
    one_line(cli(*words), 4, "unsloth/qwen2-7b-instruct-bnb-4bit", "--allow-base-mismatch")
    assert cli(*words, "--allow-base-mismatch")[0] == 0


def test_embeddings_trained_beside_a_lora_are_refused_however_they_are_written(workspace: Workspace, cli: Cli) -> None:
    declared = random_lora(workspace.root / "a", 1, modules_to_save=["embed_tokens", "lm_head"])
    one_line(cli("merge", "--adapters", declared, "--name", "m"), 4, "modules_to_save")
    # with a resized vocabulary peft saves the embeddings though its config names none
    undeclared = random_lora(workspace.root / "b", 2)
    tensors = load_file(undeclared / WEIGHTS)
    key = "base_model.model.model.embed_tokens.weight"
    save_file({**tensors, key: np.ones((4, 5), np.float32)}, undeclared / WEIGHTS)
    one_line(cli("merge", "--adapters", undeclared, "--name", "m"), 4, "1 keys", key)
    # a LoRA of the embeddings themselves has keys of its own kind
    embedded = random_lora(workspace.root / "c", 3)
    keys = [f"base_model.model.model.embed_tokens.lora_embedding_{side}" for side in "AB"]
    save_file({**load_file(embedded / WEIGHTS), keys[0]: np.ones((2, 4), np.float32), keys[1]: np.ones((5, 2), np.float32)}, embedded / WEIGHTS)
    one_line(cli("merge", "--adapters", embedded, "--name", "m"), 4, "2 keys", keys[0])


def random_model(kind: str) -> Any:
    """Return a random causal model of two layers."""
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaForCausalLM

    if kind == "qwen2":
        return tiny_qwen2()
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    return GemmaForCausalLM(GemmaConfig(**sizes, head_dim=8)).eval()


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gemma"])
@pytest.mark.parametrize("rank_out", ["cat", "svd:3", "fold"])
def test_every_architecture_is_merged_and_loaded(workspace: Workspace, cli: Cli, kind: str, rank_out: str) -> None:
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    base = workspace.root / "base"
    random_model(kind).save_pretrained(base)
    paths = []
    for i, rank in enumerate((2, 3)):
        config = LoraConfig(r=rank, lora_alpha=5, target_modules="all-linear" if i == 0 else ["q_proj", "down_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        torch.manual_seed(i)
        for name, tensor in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(tensor, std=0.1)
        paths.append(workspace.root / f"a{i}")
        model.save_pretrained(paths[-1])
    code, _, err = cli("merge", "--adapters", "a0,a1", "--rank-out", rank_out, "--name", "m", "--out", "out")
    assert code == 0, err
    parts = [peft_deltas(base, p) for p in paths]
    assert len(parts[0]) == 14  # seven linear layers, twice
    assert len(parts[1]) == 4
    exact = {m: 0.5 * d + 0.5 * parts[1].get(m, 0) for m, d in parts[0].items()}  # absent is zero
    if rank_out == "fold":
        before, after = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (base, workspace.root / "out"))
        found = {m: (after[f"{m}.weight"].double() - before[f"{m}.weight"].double()).numpy() for m in exact}
        assert all(np.allclose(found[m], exact[m], atol=1e-6) for m in exact)
        return
    found = peft_deltas(base, workspace.root / "out")
    assert set(found) == set(exact)
    for module, meant in exact.items():
        if rank_out == "svd:3":
            u, s, vt = np.linalg.svd(meant)
            meant = (u[:, :3] * s[:3]) @ vt[:3]
        assert np.linalg.norm(found[module] - meant) <= 1e-6 * np.linalg.norm(meant)
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), workspace.root / "out")
    assert torch.isfinite(merged(torch.arange(9)[None]).logits).all()


def test_what_vllm_asks_of_an_adapter(workspace: Workspace, cli: Cli) -> None:
    # vLLM wants pairs of .lora_A.weight and .lora_B.weight of one rank, r in the config, plain targets and no modules_to_save
    random_lora(workspace.root / "a", 1, rank=2, modules=[Q, V], rank_pattern={"v_proj": 2})
    random_lora(workspace.root / "b", 2, rank=3, modules=[V], use_rslora=True)
    assert cli("merge", "--adapters", "a,b", "--name", "m", "--dtype", "bfloat16", "--out", "out")[0] == 0
    config = json.loads((workspace.root / "out/adapter_config.json").read_text())
    with (workspace.root / "out" / WEIGHTS).open("rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
    header.pop("__metadata__")
    assert set(header) == {f"base_model.model.{m}.lora_{side}.weight" for m in (Q, V) for side in "AB"}
    assert {entry["shape"][0] for key, entry in header.items() if "lora_A" in key} == {config["r"]} == {5}
    assert {entry["shape"][1] for key, entry in header.items() if "lora_B" in key} == {5}
    assert (config["lora_alpha"], config["use_rslora"], config["use_dora"], config["bias"], config["modules_to_save"]) == (5, False, False, "none", None)
    assert (config["rank_pattern"], config["alpha_pattern"], config["target_modules"]) == ({}, {}, _TARGETS)


def test_the_model_card_is_filled(workspace: Workspace, cli: Cli) -> None:
    for i, name in enumerate("ab"):
        random_lora(workspace.root / name, i, base_model_name_or_path="Qwen/Qwen2-7B-Instruct")
    words = ["merge", "--adapters", "a,b", "--weights", "0.75,0.25", "--method", "product", "--rank-out", "svd:2", "--name", "woven", "--out", "out"]
    assert cli(*words)[0] == 0
    text = (workspace.root / "out/README.md").read_text()
    front = text.split("---")[1]
    assert 'base_model: "Qwen/Qwen2-7B-Instruct"' in front
    assert "library_name: peft" in front
    for tag in ("lora", "recmerge", "recommendation", "product"):
        assert f"  - {tag}\n" in front
    assert "# woven" in text
    for name, weight in (("a", "0.75"), ("b", "0.25")):
        assert f"| `{name}` | {weight} | `{AdapterFile(workspace.root / name).sha256[:12]}` |" in text
    assert "svd:2" in text
    assert "PeftModel.from_pretrained" in text
    assert "More Information Needed" not in text
    assert str(workspace.root) not in text
