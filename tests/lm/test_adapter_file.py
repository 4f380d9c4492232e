"""The adapter's file format: every way it can be written, and every way it can be broken."""

import hashlib
import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from recmerge.errors import ArtifactError
from recmerge.lm.adapter_file import AdapterFile, is_adapter
from recmerge.lm.adapter_write import AdapterLayout, AdapterShape, ModelCard, target_modules_of
from recmerge.lm.tensor_file import TensorFile, TensorWriter, narrow, unit_roundoff, widen
from tests.merging.tiny import Q, V, random_lora, stream_lora, write_lora

B = [[1, 2], [3, 4], [5, 6]]
A = [[1, 0], [0, 2]]
WEIGHTS = "adapter_model.safetensors"


def refused(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        AdapterFile(folder).verify()
    return caught.value.what


@pytest.mark.parametrize("key", ["", ".default", ".sports"])
def test_reads_every_spelling_of_keys(tmp_path: Path, key: str) -> None:
    adapter = AdapterFile(write_lora(tmp_path, {Q: (B, A)}, key=key, lora_alpha=4))
    b, a = adapter.factors(Q)
    assert adapter.modules == (Q,)
    assert b.tolist() == B
    assert a.tolist() == A
    assert b.dtype == np.float64
    assert (adapter.scaling(Q), adapter.rank(Q), adapter.shape(Q)) == (2.0, 2, (3, 2))
    assert Q in adapter
    assert V not in adapter


def test_scaling_of_each_kind(tmp_path: Path) -> None:
    assert AdapterFile(write_lora(tmp_path / "rs", {Q: (B, A)}, lora_alpha=6, use_rslora=True)).scaling(Q) == pytest.approx(6 / math.sqrt(2))
    patterned = write_lora(
        tmp_path / "p",
        {Q: (B, A), V: ([[1], [1]], [[1, 1]])},
        r=8,
        lora_alpha=16,
        rank_pattern={"q_proj": 2, "layers.0.self_attn.v_proj": 1},
        alpha_pattern={"v_proj": 5},
    )
    adapter = AdapterFile(patterned)
    assert (adapter.scaling(Q), adapter.scaling(V)) == (8.0, 5.0)


def test_a_pattern_must_match_a_whole_part_of_the_name(tmp_path: Path) -> None:
    adapter = AdapterFile(write_lora(tmp_path, {Q: (B, A)}, lora_alpha=2, alpha_pattern={"proj": 100, "q_proj": 4}))
    assert adapter.scaling(Q) == 2.0  # "proj" does not match "q_proj"


@pytest.mark.parametrize(
    "extra",
    [
        {"use_dora": True},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"peft_type": "IA3"},
        {"target_parameters": ["experts.w"]},
        {"init_lora_weights": "pissa"},
        {"trainable_token_indices": [1]},
    ],
)
def test_what_is_no_plain_lora_is_refused(tmp_path: Path, extra: dict[str, object]) -> None:
    assert next(iter(extra)) in refused(write_lora(tmp_path, {Q: (B, A)}, **extra))


def test_missing_pieces_are_named(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "adapter_config.json" in refused(tmp_path)
    folder = write_lora(tmp_path / "a", {Q: (B, A)})
    (folder / WEIGHTS).unlink()
    assert WEIGHTS in refused(folder)
    assert is_adapter(folder)
    (folder / "adapter_config.json").write_text("{not json")
    assert "adapter_config.json" in refused(folder)


class Bomb:
    """Writes a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return (Path.write_text, (self.target, "ran"))


def test_a_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "a", {Q: (B, A)})
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "payload")))
    assert "adapter_model.bin" in refused(folder)
    assert not (tmp_path / "payload").exists()
    pickle.loads((folder / "adapter_model.bin").read_bytes())  # the bomb itself works
    assert (tmp_path / "payload").exists()


@pytest.mark.parametrize("cut", [0, 4, 40, -1, -7])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, cut: int) -> None:
    folder = write_lora(tmp_path, {Q: (B, A)})
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:cut])
    assert str(path) in refused(folder)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_name_the_tensor(tmp_path: Path, bad: float) -> None:
    what = refused(write_lora(tmp_path, {Q: ([[1, bad]], A)}))
    assert f"{Q}.lora_B.weight" in what


def test_keys_that_are_no_pair_are_counted(tmp_path: Path) -> None:
    folder = write_lora(tmp_path, {Q: (B, A)})
    tensors = load_file(folder / WEIGHTS)
    del tensors[f"base_model.model.{Q}.lora_B.weight"]
    save_file({**tensors, "x.lora_magnitude_vector": np.ones(2, np.float32)}, folder / WEIGHTS)
    what = refused(folder)
    assert "2 keys" in what
    assert "lora_magnitude_vector" in what
    assert f"{Q}.lora_A" in what


def test_two_adapters_in_one_file_are_refused(tmp_path: Path) -> None:
    folder = write_lora(tmp_path, {Q: (B, A)}, key=".one")
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, **{k.replace(".one.", ".two."): v for k, v in tensors.items()}}, folder / WEIGHTS)
    assert "2 keys" in refused(folder)


def test_a_rank_other_than_the_configs_is_refused(tmp_path: Path) -> None:
    assert "rank 2" in refused(write_lora(tmp_path, {Q: (B, A)}, r=4))
    assert "no linear layer" in refused(write_lora(tmp_path / "b", {Q: ([[1, 2, 3]], A)}))


def test_a_changed_file_is_known_by_its_card(tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    digest = stream_lora(folder, {Q: (B, A)}, AdapterShape("some/base", ["q_proj"]), card={"schema": 1, "kind": "adapter"})
    AdapterFile(folder).verify()
    assert digest == AdapterFile(folder).sha256 == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    assert "was changed" in refused(folder)


def test_write_adapter_pads_to_one_rank_and_repeats_its_bytes(tmp_path: Path) -> None:
    modules = {Q: (B, A), V: ([[7.0]], [[8.0, 9.0]])}
    for name in ("one", "two"):
        stream_lora(tmp_path / name, modules, AdapterShape("some/base", ["q_proj", "v_proj"]), rank=2, readme=ModelCard("Title", "Body"))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    adapter = AdapterFile(tmp_path / "one")
    b, a = adapter.factors(V)
    assert b.tolist() == [[7, 0]]
    assert a.tolist() == [[8, 9], [0, 0]]
    assert {adapter.scaling(m) for m in adapter.modules} == {1.0}
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"], config["rank_pattern"]) == (2, 2, False, {})
    readme = (tmp_path / "one" / "README.md").read_text()
    assert readme.startswith('---\nbase_model: "some/base"\nlibrary_name: peft\n')
    assert "# Title" in readme


def test_numbers_beyond_float16_are_refused(tmp_path: Path) -> None:
    layout = AdapterLayout({Q: (1, 1)}, 1, "F16")
    with pytest.raises(ArtifactError, match=f"{Q} .*float16"):
        layout.round(Q, np.array([[1e6]]))
    assert layout.round(Q, np.array([[65504.0]])) == 65504.0  # the largest


def test_a_file_that_ends_before_its_header_says_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 bytes fewer"), TensorWriter(tmp_path / "x.safetensors", {"w": ("F32", (2,))}, {}) as out:
        out.write(np.zeros(1, np.float32))


@pytest.mark.parametrize("place", [0, 2**20 - 1, 2**20, 3 * 2**20 + 11])  # of the byte of the tensor that the disk gets wrong
def test_a_byte_that_is_not_what_was_written_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    real, values = os.preadv, np.arange(2**20, dtype=np.float32)
    path = tmp_path / "x.safetensors"
    with TensorWriter(path, {"w": ("F32", values.shape)}, {}, read_back=True) as out:
        start = path.stat().st_size  # of the tensor
        out.write(values)
    assert np.array_equal(TensorFile(path).read("w"), values)

    def flipped(fd: int, buffers: list[memoryview], offset: int) -> int:
        n = real(fd, buffers, offset)
        if offset <= start + place < offset + n:
            buffers[0][start + place - offset] ^= 1
        return n

    monkeypatch.setattr(os, "preadv", flipped)
    with (
        pytest.raises(ArtifactError, match="does not hold what was written"),
        TensorWriter(path, {"w": ("F32", values.shape)}, {}, read_back=True) as out,
    ):
        out.write(values)


def test_target_modules_are_suffixes_or_full_names(tmp_path: Path) -> None:
    q = AdapterFile(random_lora(tmp_path / "q", 0, modules=[Q]))
    v = AdapterFile(random_lora(tmp_path / "v", 1, modules=[V]))
    assert target_modules_of([v, q]) == ["q_proj", "v_proj"]
    layer = AdapterFile(random_lora(tmp_path / "l", 1, modules=[V], layers_to_transform=[0]))
    pattern = AdapterFile(random_lora(tmp_path / "r", 1, modules=[V], target_modules=r".*\.v_proj"))
    assert target_modules_of([q, layer]) == [Q, V]
    assert target_modules_of([q, pattern]) == [Q, V]


def test_bfloat16_rounds_as_torch_does(tmp_path: Path) -> None:
    import torch

    draw = np.random.default_rng(0)
    values = np.concatenate(
        [draw.normal(size=1000) * 10.0 ** draw.integers(-30, 30, 1000), [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3e38, 3.4e38, math.inf, math.nan]]
    )
    single = values.astype(np.float32)
    expected = torch.from_numpy(single).to(torch.bfloat16).double().numpy()
    assert np.array_equal(widen(narrow(values, "BF16"), "BF16"), expected, equal_nan=True)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_tensor_files_round_trip_through_safetensors(tmp_path: Path, dtype: str) -> None:
    from safetensors.torch import load_file as load_torch

    path = tmp_path / "x.safetensors"
    with TensorWriter(path, {"odd": (dtype, (3, 1)), "empty": (dtype, (0, 4)), "one": (dtype, ())}, {"format": "pt"}) as out:
        for values in (np.array([[0.5], [-2.0], [1024.0]]), np.zeros((0, 4)), np.array(3.0)):
            out.write(narrow(values, dtype))
    theirs = load_torch(path)
    assert theirs["odd"].double().tolist() == [[0.5], [-2.0], [1024.0]]
    assert tuple(theirs["empty"].shape) == (0, 4)
    ours = TensorFile(path)
    assert ours.read("odd").tolist() == [[0.5], [-2.0], [1024.0]]
    assert ours.read("one") == 3.0
    assert ours.metadata == {"format": "pt"}


def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    save_file({"w": np.ones((2, 2), np.int8)}, tmp_path / "q.safetensors")
    with pytest.raises(ArtifactError, match="I8"):
        TensorFile(tmp_path / "q.safetensors").read("w")


def test_rows_and_pieces_are_those_of_the_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(700, 1000)).astype(np.float32)  # some three pieces
    save_file({"w": values, "n": np.arange(5)}, tmp_path / "x.safetensors")
    file = TensorFile(tmp_path / "x.safetensors")
    assert np.array_equal(file.rows("w", 0, 3), values[:3])
    assert np.array_equal(file.rows("w", 698, 900), values[698:])
    pieces = list(file.pieces("w"))
    assert len(pieces) == 3
    assert np.concatenate(pieces).tobytes() == values.tobytes()
    assert np.array_equal(np.concatenate(list(file.floats("w"))), values.ravel())
    assert file.read_narrow("w").dtype == np.float32
    assert file.scan() == (hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest(), None)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_scan_finds_the_first_number_that_is_none(tmp_path: Path, dtype: str, bad: float) -> None:
    values = np.ones(600_000)
    values[-1] = bad
    with TensorWriter(tmp_path / "x.safetensors", {"good": (dtype, (2,)), "bad": (dtype, (600_000,)), "worse": (dtype, (1,))}, {}) as out:
        for part in (np.array([0.0, 6e4]), values, np.array([bad])):
            out.write(narrow(part, dtype))
    assert TensorFile(tmp_path / "x.safetensors").scan()[1] == "bad"


def test_an_open_file_is_the_one_that_was_checked(tmp_path: Path) -> None:
    adapter = AdapterFile(write_lora(tmp_path / "a", {Q: (B, A)}))
    other = write_lora(tmp_path / "b", {Q: ([[9, 9]] * 3, A)})
    (other / WEIGHTS).replace(tmp_path / "a" / WEIGHTS)
    assert adapter.factors(Q)[0].tolist() == B
    assert adapter.sha256 != AdapterFile(tmp_path / "a").sha256


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_no_rounding_is_larger_than_the_unit_roundoff(dtype: str) -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=100_000) * 2.0 ** draw.integers(-30, 15, 100_000)
    relative, least = unit_roundoff(dtype)
    off = np.abs(widen(narrow(values, dtype), dtype).astype(np.float64) - values)
    allowed = relative * np.abs(values) * (1 + 2.0**-10) + least
    assert (off <= allowed).all()
    assert (off > allowed / 2).any()  # and it is no looser than that
