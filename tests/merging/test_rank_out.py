"""cat, svd and fold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from recmerge.errors import ArtifactError, UsageError
from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.parts import Delta, Dense, LowRank, all_modules, module_factors
from recmerge.merging.product import product
from recmerge.merging.rank_out import RankOut, parse_rank_out
from recmerge.merging.rank_out.cat import cat
from recmerge.merging.rank_out.fold import check_folded, fold, match_modules, open_base
from recmerge.merging.rank_out.svd import svd
from recmerge.merging.rank_out.thin_qr import extend_qr, thin_qr
from tests.merging.tiny import peft_adapters, tiny_qwen2

DELTA = LowRank(np.random.default_rng(1).normal(size=(9, 5)), np.random.default_rng(2).normal(size=(5, 7)))


def test_parse() -> None:
    assert parse_rank_out("cat") == RankOut("cat")
    assert parse_rank_out("svd:16") == RankOut("svd", 16)
    for bad in ("svd", "svd:0", "svd:-1", "svd:1.5", "", "CAT", "svd:03"):
        with pytest.raises(UsageError):
            parse_rank_out(bad)


def test_cat_changes_nothing() -> None:
    kept, lost = cat(DELTA)
    assert kept is DELTA
    assert lost == 0.0


def test_svd_by_hand() -> None:
    # diag(3, 1, 0): the best rank 1 keeps 9 of 10 of the energy
    kept, lost = svd(LowRank(np.diag([3.0, 1.0, 0.0]), np.eye(3)), 1)
    np.testing.assert_allclose(kept.B @ kept.A, np.diag([3.0, 0, 0]), atol=1e-14)
    assert lost == pytest.approx(0.1)
    assert np.linalg.norm(kept.B) == pytest.approx(np.linalg.norm(kept.A))  # sqrt(S) on both sides


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_svd_is_the_optimum_of_a_dense_svd(rank: int) -> None:
    dense = DELTA.B @ DELTA.A
    u, s, vt = np.linalg.svd(dense)
    kept, lost = svd(DELTA, rank)
    assert kept.rank == rank
    np.testing.assert_allclose(kept.B @ kept.A, (u[:, :rank] * s[:rank]) @ vt[:rank], atol=1e-12)
    assert lost == pytest.approx((s[rank:] ** 2).sum() / (s**2).sum())


@pytest.mark.parametrize("rank", [5, 6, 100])
def test_svd_of_full_rank_is_cat(rank: int) -> None:
    kept, lost = svd(DELTA, rank)
    assert kept.rank == 5
    assert lost == pytest.approx(0.0, abs=1e-25)
    np.testing.assert_allclose(kept.B @ kept.A, DELTA.B @ DELTA.A, atol=1e-12)


def test_svd_of_more_columns_than_the_matrix_has_and_of_nothing() -> None:
    wide = LowRank(np.random.default_rng(3).normal(size=(4, 9)), np.random.default_rng(4).normal(size=(9, 3)))
    kept, _ = svd(wide, 100)
    assert kept.rank == 3
    np.testing.assert_allclose(kept.B @ kept.A, wide.B @ wide.A, atol=1e-12)
    zero, lost = svd(LowRank(np.zeros((4, 2)), np.zeros((2, 3))), 1)
    assert (lost, float(np.abs(zero.B @ zero.A).max())) == (0.0, 0.0)


@pytest.mark.parametrize("shape", [(3, 5), (128, 4), (129, 4), (1000, 7), (700, 100), (3000, 200), (20_000, 3)])
def test_thin_qr_in_blocks(shape: tuple[int, int]) -> None:
    tall = np.random.default_rng(5).normal(size=shape)
    tall[:, -1] = tall[:, 0]  # merged adapters may repeat a direction
    q, r = thin_qr(tall)
    np.testing.assert_allclose(q @ r, tall, atol=1e-11)
    np.testing.assert_allclose(q.T @ q, np.eye(min(shape)), atol=1e-12)


def test_a_basis_is_extended_by_what_it_does_not_hold() -> None:
    draw = np.random.default_rng(6)
    basis, _ = np.linalg.qr(draw.normal(size=(500, 5)))
    tall = np.concatenate([basis @ draw.normal(size=(5, 2)), draw.normal(size=(500, 70))], axis=1)  # two columns lie inside
    q, r = extend_qr(basis, tall)
    assert np.array_equal(q[:, :5], basis)
    np.testing.assert_allclose(q @ r, tall, atol=1e-11)
    np.testing.assert_allclose(q.T @ q, np.eye(77), atol=1e-12)


def test_svd_repeats_its_bytes_whatever_the_signs() -> None:
    one, _ = svd(DELTA, 3)
    two, _ = svd(LowRank(-DELTA.B, -DELTA.A), 3)
    np.testing.assert_allclose(one.B, two.B, atol=1e-12)


def low_rank_and_noise(out: int, width: int, rank: int, noise: float) -> Dense:
    draw = np.random.default_rng(out)
    signal = (draw.normal(size=(out, rank)) * np.linspace(1, 0.2, rank)) @ draw.normal(size=(rank, width))
    return Dense((signal + noise * draw.normal(size=(out, width))).astype(np.float32))


def test_svd_of_a_dense_matrix_by_hand() -> None:
    # [[3, 0], [0, -1]]: the best rank 1 keeps 9 of 10 of the energy
    kept, lost = svd(Dense(np.array([[3.0, 0], [0, -1]], np.float32)), 1)
    np.testing.assert_allclose(kept.B @ kept.A, [[3, 0], [0, 0]], atol=1e-14)
    assert lost == pytest.approx(0.1)
    whole, lost = svd(Dense(np.array([[3.0, 0], [0, -1]], np.float32)), 9)
    np.testing.assert_allclose(whole.B @ whole.A, [[3, 0], [0, -1]], atol=1e-14)
    assert (whole.rank, lost) == (2, pytest.approx(0.0, abs=1e-15))


@pytest.mark.parametrize("shape", [(40, 9), (9, 40), (300, 700), (700, 300), (500, 500)])
@pytest.mark.parametrize("noise", [0.0, 0.5, 30.0])  # none, as of a trimmed merge, nothing but noise
def test_svd_of_a_dense_matrix_is_the_optimum_and_says_what_it_loses(shape: tuple[int, int], noise: float) -> None:
    dense = low_rank_and_noise(*shape, rank=6, noise=noise)
    s = np.linalg.svd(dense.matrix.astype(float), compute_uv=False)
    kept, lost = svd(dense, 6)
    energy = (s**2).sum()
    assert kept.rank == 6
    assert np.sum((dense.matrix - kept.B @ kept.A) ** 2) / energy == pytest.approx(lost, abs=1e-12)
    assert lost == pytest.approx((s[6:] ** 2).sum() / energy, abs=1e-5)
    again, _ = svd(dense, 6)
    assert np.array_equal(again.B, kept.B)
    assert np.array_equal(again.A, kept.A)


@pytest.mark.parametrize("rank", [2, 20, 90, 400])
def test_svd_of_a_dense_matrix_at_any_rank(rank: int) -> None:
    dense = low_rank_and_noise(300, 320, rank=6, noise=0.5)
    s = np.linalg.svd(dense.matrix.astype(float), compute_uv=False)
    kept, lost = svd(dense, rank)
    assert kept.rank == min(rank, 300)
    assert lost == pytest.approx((s[rank:] ** 2).sum() / (s**2).sum(), abs=1e-5)


def test_svd_of_a_large_matrix_of_zeros() -> None:
    kept, lost = svd(Dense(np.zeros((300, 400), np.float32)), 4)
    assert lost == 0.0
    assert not (kept.B @ kept.A).any()


def folded_states(base: Path, adapters: list[Path], weights: list[float], out: Path, dtype: str | None = None, dense: bool = False) -> dict[str, torch.Tensor]:
    files = [AdapterFile(p) for p in adapters]
    modules = all_modules(files)
    weights_of = open_base(base)
    matches = match_modules(weights_of, modules, [files[0].shape(m) for m in modules], files[0].fan_in_fan_out)

    def delta_of(module: str) -> Delta:
        change = product(module_factors(files, module), weights)
        return Dense((change.B @ change.A).astype(np.float32)) if dense else change

    result = fold(weights_of, matches, delta_of, out, dtype)
    assert sorted(result.errors) == modules
    check_folded(out, result.sha256)
    return AutoModelForCausalLM.from_pretrained(out).state_dict()


@pytest.mark.parametrize(("kind", "tie"), [("float32", True), ("bfloat16", True), ("float32", False)])
def test_fold_of_a_sharded_model_is_merge_and_unload_within_one_cast(tmp_path: Path, kind: str, tie: bool) -> None:
    base = tmp_path / "base"
    tiny_qwen2(dtype=kind, tie=tie).save_pretrained(base, max_shard_size="20KB")
    assert len(list(base.glob("*.safetensors"))) >= 2
    (base / "tokenizer.json").write_text("{}")
    adapters = peft_adapters(tmp_path, base, [{"r": 3, "lora_alpha": 6}])
    found = folded_states(base, adapters, [1.0], tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    expected = PeftModel.from_pretrained(model, adapters[0]).merge_and_unload().state_dict()
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    half_ulp = 2.0**-8 if kind == "bfloat16" else 2.0**-23
    for name, tensor in expected.items():
        assert found[name].dtype == getattr(torch, kind)
        if "q_proj.weight" in name or "down_proj.weight" in name:
            assert (found[name].float() - tensor).abs().max() <= half_ulp * tensor.abs().max()
            assert not torch.equal(found[name], before[name])
        else:
            assert torch.equal(found[name], before[name])  # biases, norms, embeddings: bit for bit
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_fold_is_exact_to_one_rounding_for_several_adapters(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_qwen2(dtype="bfloat16").save_pretrained(base)
    adapters = peft_adapters(tmp_path, base, [{"r": 3, "lora_alpha": 6}, {"r": 5, "lora_alpha": 1, "use_rslora": True}])
    found = folded_states(base, adapters, [0.5, -0.25], tmp_path / "out")
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    files = [AdapterFile(p) for p in adapters]
    for module in all_modules(files):
        delta = sum(w * f.scaling(module) * f.factors(module)[0] @ f.factors(module)[1] for f, w in zip(files, [0.5, -0.25], strict=True))
        exact = before[f"{module}.weight"].double().numpy() + delta
        assert torch.equal(found[f"{module}.weight"], torch.from_numpy(exact.astype(np.float32)).to(torch.bfloat16))


def test_fold_to_another_dtype_says_so_in_the_config(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_qwen2(dtype="bfloat16").save_pretrained(base)
    adapters = peft_adapters(tmp_path, base, [{"r": 2}])
    found = folded_states(base, adapters, [1.0], tmp_path / "out", "float32")
    assert {t.dtype for t in found.values()} == {torch.float32}


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_fold_transposes_for_conv1d(tmp_path: Path, square: bool, dense: bool) -> None:
    base = tmp_path / "base"
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2)).save_pretrained(base)
    modules = ["attn.c_proj"] if square else ["c_attn"]  # 16 x 16, or 16 x 48
    adapters = peft_adapters(tmp_path, base, [{"r": 2, "target_modules": modules, "fan_in_fan_out": True}])
    found = folded_states(base, adapters, [1.0], tmp_path / "out", dense=dense)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapters[0]).merge_and_unload().state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def test_modules_that_the_base_lacks_are_counted_and_named(tmp_path: Path) -> None:
    tiny_qwen2().save_pretrained(tmp_path)
    base = open_base(tmp_path)
    names = [f"model.layers.{i}.self_attn.q_proj" for i in range(6)]
    with pytest.raises(ArtifactError, match=r"4 of 6 modules .*layers\.2.*layers\.3.*layers\.4") as caught:
        match_modules(base, names, [(32, 32)] * 6, False)
    assert "layers.5" not in caught.value.what
    with pytest.raises(ArtifactError, match="32 x 31"):
        match_modules(base, names[:1], [(32, 31)], False)
    assert match_modules(base, names[:1], [(32, 32)], False) == {f"{names[0]}.weight": (names[0], False)}


def test_a_checkpoint_of_the_inner_model_is_found_without_its_prefix(tmp_path: Path) -> None:
    tiny_qwen2().model.save_pretrained(tmp_path)
    assert match_modules(open_base(tmp_path), ["model.layers.0.self_attn.q_proj"], [(32, 32)], False) == {
        "layers.0.self_attn.q_proj.weight": ("model.layers.0.self_attn.q_proj", False)
    }


def test_broken_bases_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"config\.json"):
        open_base(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match="safetensors"):
        open_base(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../../etc/passwd"}}))
    with pytest.raises(ArtifactError, match="passwd"):
        open_base(tmp_path)


def test_a_folded_model_that_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_qwen2().save_pretrained(base)
    weights = open_base(base)
    result = fold(weights, {}, lambda m: DELTA, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"1 files .*model\.safetensors"):
        check_folded(tmp_path / "out", result.sha256)
