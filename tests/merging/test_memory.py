"""Merging in a process of its own whose memory is watched: bounded by blocks and a few tensors, whatever the model's size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from recmerge.lm.tensor_file import TensorFile, TensorWriter, narrow
from tests.merging.tiny import write_lora

MIB = 2**20
_CHILD = """
import json, resource
from pathlib import Path

def peak():
    # getrusage would count what the parent held when it started this process
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024

{work}
small()
before = peak()
large()
print(json.dumps([before, peak()]))
"""
_FOLD = """
from recmerge.lm.adapter_file import AdapterFile
from recmerge.merging.parts import module_factors
from recmerge.merging.product import product
from recmerge.merging.rank_out.fold import check_folded, fold, match_modules, open_base

def run(base, adapter, out):
    file = AdapterFile(Path(adapter))
    weights = open_base(Path(base))
    matches = match_modules(weights, file.modules, [file.shape(m) for m in file.modules], False)
    folded = fold(weights, matches, lambda m: product(module_factors([file], m), [1.0]), Path(out))
    check_folded(Path(out), folded.sha256)

def small():
    run("small", "small_adapter", "small_out")

def large():
    run("large", "large_adapter", "large_out")
"""
_CAT = """
from recmerge.lm.adapter_file import AdapterFile
from recmerge.lm.adapter_write import AdapterShape, ModelCard, write_adapter
from recmerge.merging.assemble import assemble, layout_of
from recmerge.merging.combine import Merger
from recmerge.merging.recipe import Recipe

def run(names, out):
    adapters = [AdapterFile(Path(n)) for n in names]
    for adapter in adapters:
        adapter.verify()
    recipe = Recipe("product", [0.5, 0.5], "cat")
    layout = layout_of(adapters, recipe, "F32")
    write_adapter(Path(out), layout, assemble(Merger(adapters, recipe), layout, {}, lambda: None), AdapterShape(None, ["q_proj"]), {}, ModelCard("x", "y"))

def small():
    run(["small_adapter", "small_adapter"], "small_out")

def large():
    run(["large_adapter", "large_adapter"], "large_out")
"""


pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")


def growth(folder: Path, work: str) -> int:
    """Return by how many bytes the large job raises a child's peak beyond the interpreter, its libraries and a small job."""
    done = subprocess.run([sys.executable, "-c", _CHILD.format(work=work)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    return after - before


def write_base(folder: Path, n_shards: int, height: int, width: int, n_layers: int) -> list[str]:
    """Write a base of bfloat16 matrices, some of which an adapter changes; returns those modules."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    block = narrow(np.random.default_rng(0).normal(size=(height, width)), "BF16")
    index, modules = {}, []
    for shard in range(n_shards):
        names = [f"model.layers.{shard * n_layers + i}.{part}_proj.weight" for i in range(n_layers) for part in ("q", "v")]
        file = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        with TensorWriter(folder / file, dict.fromkeys(names, ("BF16", (height, width))), {"format": "pt"}) as out:
            for name in names:
                out.write(block)
                index[name] = file
        modules += [name.removesuffix(".weight") for name in names if "q_proj" in name]
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return modules


def write_adapter_for(folder: Path, modules: list[str], height: int, width: int, rank: int = 4) -> None:
    draw = np.random.default_rng(1)
    write_lora(folder, {m: (draw.normal(size=(height, rank)), draw.normal(size=(rank, width))) for m in modules})


def test_fold_is_bounded_by_a_block_of_rows(tmp_path: Path) -> None:
    # one weight is 16 MiB in the file and would be 64 MiB in float64; the whole base is 192 MiB
    small, large = write_base(tmp_path / "small", 1, 64, 64, 1), write_base(tmp_path / "large", 3, 4096, 2048, 2)
    write_adapter_for(tmp_path / "small_adapter", small, 64, 64)
    write_adapter_for(tmp_path / "large_adapter", large, 4096, 2048)
    size = sum(p.stat().st_size for p in (tmp_path / "large").glob("*.safetensors"))
    assert size > 190 * MIB
    assert growth(tmp_path, _FOLD) < 80 * MIB
    changed, before = (TensorFile(tmp_path / name / "model-00003-of-00003.safetensors") for name in ("large_out", "large"))
    assert not np.array_equal(changed.rows("model.layers.5.q_proj.weight", 0, 8), before.rows("model.layers.5.q_proj.weight", 0, 8))
    assert np.array_equal(changed.rows("model.layers.5.v_proj.weight", 0, 8), before.rows("model.layers.5.v_proj.weight", 0, 8))


def test_fold_works_in_less_address_space_than_the_model_has(tmp_path: Path) -> None:
    small, large = write_base(tmp_path / "small", 1, 64, 64, 1), write_base(tmp_path / "large", 12, 2048, 2048, 1)  # 12 shards, 192 MiB
    write_adapter_for(tmp_path / "small_adapter", small, 64, 64)
    write_adapter_for(tmp_path / "large_adapter", large, 2048, 2048)
    limited = _FOLD.replace(
        "def large():",
        "def large():\n    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        f"    resource.setrlimit(resource.RLIMIT_AS, (used + {128 * MIB},) * 2)",
    )
    growth(tmp_path, limited)
    assert len(list((tmp_path / "large_out").glob("*.safetensors"))) == 12


def test_cat_holds_a_few_tensors(tmp_path: Path) -> None:
    modules = [f"model.layers.{i}.q_proj" for i in range(48)]
    write_adapter_for(tmp_path / "small_adapter", modules[:1], 64, 64)
    write_adapter_for(tmp_path / "large_adapter", modules, 8192, 8192, rank=16)  # 48 MiB; the result 96 MiB
    assert growth(tmp_path, _CAT) < 32 * MIB
    assert (tmp_path / "large_out/adapter_model.safetensors").stat().st_size > 95 * MIB


@pytest.mark.parametrize("work", [_FOLD, _CAT])
def test_the_watch_sees_what_is_held(tmp_path: Path, work: str) -> None:
    held = work.partition("def small")[0] + "def small():\n    pass\n\ndef large():\n    global kept\n    kept = bytearray(b'x') * (80 * 2**20)\n"
    assert growth(tmp_path, held) > 60 * MIB
