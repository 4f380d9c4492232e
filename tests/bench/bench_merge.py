"""Merging four Qwen2-7B-shaped LoRA adapters of rank 16 and random values, beside copying the same bytes and beside peft.

    python tests/bench/bench_merge.py [--layers 28] [--repeats 3] [--folder DIR]

Needs some 3 GB of disk at 28 layers. Times of recmerge are of the whole command, without the start-up that a merge of two tiny adapters shows.
Pages of memory that the system has to find anew cost several times those that were freed a moment ago, in virtual machines above all, and both
copying and merging write so much that this decides. So what an earlier repeat wrote is removed, and some seconds later the next begins: every
command, copying among them, finds the same. What copying costs in memory freed a moment ago stands beside it.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recmerge.lm.tensor_file import TensorWriter

HIDDEN, INTER, KV, RANK, SCALED = 3584, 18944, 512, 16, 32
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTER, HIDDEN),
    "mlp.up_proj": (INTER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTER),
}
N_ADAPTERS, FULL_LAYERS = 4, 28
SETTLE = 6  # seconds in which a system takes back what was freed
WEIGHTS = "adapter_model.safetensors"
_PEFT = """
import sys, time
import torch
from peft import PeftModel

def shell(modules):
    root = torch.nn.Module()
    for name, out, width in modules:
        at = root
        *path, last = name.split(".")
        for part in path:
            at.add_module(part, torch.nn.Module()) if part not in at._modules else None
            at = at._modules[part]
        linear = torch.nn.Linear(1, 1, bias=False)
        linear.in_features, linear.out_features = width, out
        linear.weight = torch.nn.Parameter(torch.zeros(1, 1).expand(out, width), requires_grad=False)  # of no memory
        at.add_module(last, linear)
    return root

rule, out, modules, *folders = sys.argv[1:]
modules = [(name, int(a), int(b)) for name, a, b in (m.split(":") for m in modules.split(","))]
start = time.perf_counter()
model = PeftModel.from_pretrained(shell(modules), folders[0], adapter_name="a0")
names = ["a0"]
for i, folder in enumerate(folders[1:], 1):
    names.append(f"a{i}")
    model.load_adapter(folder, names[-1])
middle = time.perf_counter()
with torch.no_grad():
    model.add_weighted_adapter(names, [1 / len(names)] * len(names), "merged", combination_type=rule, **({"svd_rank": 16} if rule == "svd" else {}))
merged = time.perf_counter()
model.save_pretrained(out, selected_adapters=["merged"], save_embedding_layers=False)
print("seconds", middle - start, merged - middle, time.perf_counter() - merged)
"""


def write_adapter(folder: Path, seed: int, modules: dict[str, tuple[int, int]]) -> None:
    """Write an adapter as peft would, tensor by tensor."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    layout: dict[str, tuple[str, tuple[int, int]]] = {}
    for name, (out, width) in sorted(modules.items()):
        layout[f"base_model.model.{name}.lora_A.weight"] = ("F32", (RANK, width))
        layout[f"base_model.model.{name}.lora_B.weight"] = ("F32", (out, RANK))
    with TensorWriter(folder / WEIGHTS, layout, {"format": "pt"}) as file:
        for _, shape in layout.values():
            file.write(0.02 * draw.standard_normal(shape, dtype=np.float32))
    config = {
        "peft_type": "LORA",
        "task_type": None,  # peft asks a causal model for a method that a shell of linear layers does not have
        "base_model_name_or_path": "Qwen/Qwen2-7B-Instruct",
        "r": RANK,
        "lora_alpha": SCALED,
        "target_modules": sorted({name.rpartition(".")[2] for name in modules}),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def copy(sources: list[Path], target: Path) -> None:
    """Read, hash and write the same bytes, as plainly as it can be done."""
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for path in sources:
            with path.open("rb") as f:
                while piece := f.read(2**20):
                    digest.update(piece)
                    out.write(piece)


@dataclass(frozen=True)
class Ran:
    """What a process took: seconds, seconds of all cores together, peak memory in bytes; and what it printed."""

    seconds: float
    cpu: float
    memory: int
    text: str


def settle(*written: Path) -> None:
    """Remove what was written and let the system take the memory back."""
    for path in written:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    time.sleep(SETTLE)


def timed_copy(sources: list[Path], target: Path) -> tuple[float, float]:
    """Return the seconds of copying, and those of all cores together."""
    start, busy = time.perf_counter(), time.process_time()
    copy(sources, target)
    return time.perf_counter() - start, time.process_time() - busy


def child(words: list[str]) -> Ran:
    """Run a command to its end."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(words, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(words[:6])} ... failed:\n{err.read()[-2000:]}")
        return Ran(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, out.read())


def show(what: str, seconds: float, copied: float, note: str = "") -> None:
    print(f"{what:44} {seconds:8.2f} s {seconds / copied:7.2f} x copying  {note}", flush=True)


def ours(folder: Path, adapters: list[Path], rank_out: str, repeats: int) -> Ran:
    """Time whole `recmerge merge` commands; returns the fastest."""
    names = ",".join(map(str, adapters))
    words = ["merge", "--adapters", names, "--method", "product", "--rank-out", rank_out, "--name", "m", "--workspace", str(folder), "--again", "--quiet"]

    def once() -> Ran:
        settle(folder / "runs")
        return child([sys.executable, "-m", "recmerge", *words])

    return min((once() for _ in range(repeats)), key=lambda ran: ran.seconds)


def theirs(folder: Path, adapters: list[Path], rule: str, modules: dict[str, tuple[int, int]]) -> tuple[list[float], Ran]:
    """Time peft in a process of its own: loading the adapters, merging, saving."""
    listed = ",".join(f"{name}:{out}:{width}" for name, (out, width) in modules.items())
    ran = child([sys.executable, "-c", _PEFT, rule, str(folder / f"peft-{rule}"), listed, *map(str, adapters)])
    return [float(v) for v in ran.text.split("seconds")[-1].split()], ran


def bench(folder: Path, n_layers: int, repeats: int) -> None:
    modules = {f"model.layers.{i}.{part}": shape for i in range(n_layers) for part, shape in SHAPES.items()}
    adapters = [folder / f"a{i}" for i in range(N_ADAPTERS)]
    for i, path in enumerate(adapters):
        write_adapter(path, i, modules)
    files = [path / WEIGHTS for path in adapters]
    size = sum(f.stat().st_size for f in files)
    fewer = "" if n_layers == FULL_LAYERS else f", {n_layers} of its {FULL_LAYERS} layers"
    print(f"four adapters of rank {RANK}, float32, all linear layers of Qwen2-7B{fewer}: {size / 1e6:.0f} MB; best of {repeats}")

    written = folder / "copy.bin"
    shown = []
    for _ in range(repeats):
        settle(written)
        shown.append(timed_copy(files, written))
    copied, busy = min(shown)
    show("read, hash and write the same bytes", copied, copied, f"cpu {busy:.1f} s")
    written.unlink()
    again = timed_copy(files, written)[0]
    written.unlink()
    show("  in memory freed a moment ago", again, copied)
    tiny = [folder / "t0", folder / "t1"]
    for i, path in enumerate(tiny):
        write_adapter(path, i, {"model.layers.0.self_attn.q_proj": (8, 8)})
    empty = ours(folder, tiny, "cat", repeats)
    print(f"{'start-up of recmerge merge':44} {empty.seconds:8.2f} s   taken off the next two")
    for rank_out, n in (("cat", repeats), (f"svd:{RANK}", 1)):
        ran = ours(folder, adapters, rank_out, n)
        show(f"recmerge, product, {rank_out}", ran.seconds - empty.seconds, copied, f"cpu {ran.cpu - empty.cpu:.1f} s; peak {ran.memory / 1e6:.0f} MB")
    for rule, remark in (("cat", ""), ("linear", "; not the weighted sum")):
        parts, ran = theirs(folder, adapters, rule, modules)
        note = f"load {parts[0]:.1f}, merge {parts[1]:.1f}, save {parts[2]:.1f} s; peak {ran.memory / 1e6:.0f} MB{remark}"
        show(f"peft, {rule}, without its start-up", sum(parts), copied, note)
    small = {"model.layers.0.self_attn.k_proj": SHAPES["self_attn.k_proj"]}
    singles = [folder / f"k{i}" for i in range(N_ADAPTERS)]
    for i, path in enumerate(singles):
        write_adapter(path, i, small)
    one = theirs(folder, singles, "svd", small)[0][1]
    least = one * 2 * n_layers
    show("peft, svd, its k_proj and v_proj alone", least, copied, f"{one:.2f} s for one, times {2 * n_layers}; {5 * n_layers} larger ones not counted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=FULL_LAYERS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-merge-", dir=args.folder) as folder:
        bench(Path(folder), args.layers, args.repeats)


if __name__ == "__main__":
    main()
