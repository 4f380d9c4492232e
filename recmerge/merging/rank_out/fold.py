"""Add merged changes to the base model's own weights: no cost at inference, one file set per merge."""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recmerge.errors import ArtifactError, ResourceError
from recmerge.lm.tensor_file import DTYPES, TensorFile, TensorWriter, narrow, stored_type, widen, width_of
from recmerge.merging.parts import Delta, Dense, Matrix
from recmerge.merging.side_by_side import side_by_side
from recmerge.merging.tiles import outer

_INDEX = "model.safetensors.index.json"
_NOT_COPIED = {".safetensors", ".bin", ".pt", ".pth", ".pkl", ".msgpack", ".h5", ".gguf", ".onnx", ".py", ".md"}
_SMALL_FLOATS = ("F32", "F16", "BF16", "F64")
_ENTRIES = 2**18  # of a weight that a thread adds to at once: bounds its float64 copies
_TRANSPOSED_TYPES = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")  # models built of Conv1D


@dataclass(frozen=True)
class FoldError:
    """What one folded weight lost by its one cast.

    Args:
        weight: Relative Frobenius distance of the stored weight from the exact one.
        delta: The same distance relative to the change: how much of the merge the file's dtype rounds away.
    """

    weight: float
    delta: float


@dataclass
class Folded:
    """What `fold` wrote.

    Args:
        errors: module -> what its cast lost.
        sha256: file name -> hash of what was handed to the file.
    """

    errors: dict[str, FoldError] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass
class BaseWeights:
    """A base model's safetensors and which tensor each module's weight is.

    Args:
        folder: The model's folder.
        files: Its shards, by file name.
        config: Its config.json.
    """

    folder: Path
    files: dict[str, TensorFile]
    config: dict[str, Any] = field(default_factory=dict)

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Return a tensor's sizes."""
        return next(f.tensors[tensor].shape for f in self.files.values() if tensor in f.tensors)

    def __contains__(self, tensor: object) -> bool:
        return any(tensor in f.tensors for f in self.files.values())


def open_base(folder: Path) -> BaseWeights:
    """Open a base model's shards, headers only.

    Args:
        folder: A folder with config.json and safetensors weights.

    Returns:
        The shards.

    Raises:
        ArtifactError: It holds no safetensors, or one is truncated or missing.
    """
    index = folder / _INDEX
    if not (folder / "config.json").is_file():
        raise ArtifactError(f"base {folder} holds no config.json, so it is no model", fix="give --base the model's own folder")
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = sorted(p.name for p in folder.glob("*.safetensors"))
    missing = [n for n in names if Path(n).name != n or not (folder / n).is_file()]
    if missing or not names:
        raise ArtifactError(f"base {folder} lacks {', '.join(missing[:3]) or 'safetensors weights'}", fix="fetch the base model again, as safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return BaseWeights(folder, {n: TensorFile(folder / n) for n in names}, config)


def match_modules(base: BaseWeights, modules: Sequence[str], shapes: Sequence[tuple[int, int]], transposed: bool) -> dict[str, tuple[str, bool]]:
    """Find each module's weight in the base.

    Args:
        base: The base model.
        modules: Module names as in the adapters.
        shapes: Their (out, in).
        transposed: Whether the adapters say that the base stores (in, out).

    Returns:
        tensor name -> (module, whether the change is added transposed).

    Raises:
        ArtifactError: A module is not there, or has another shape.
    """
    names = {m: f"{m}.weight" for m in modules}
    if not any(name in base for name in names.values()):  # a checkpoint of the inner model has no prefix
        names = {m: f"{m.partition('.')[2]}.weight" for m in modules}
    lost = [m for m, name in names.items() if name not in base]
    if lost:
        raise ArtifactError(
            f"{len(lost)} of {len(modules)} modules are not in base {base.folder}: {', '.join(lost[:3])}", fix="give the base the adapters were trained on"
        )
    found: dict[str, tuple[str, bool]] = {}
    conv1d = transposed or base.config.get("model_type") in _TRANSPOSED_TYPES
    for module, (out, width) in zip(modules, shapes, strict=True):
        shape = base.shape(names[module])
        fits = {(out, width): False, (width, out): True}
        if shape not in fits:
            raise ArtifactError(f"module {module} is {out} x {width}, base {base.folder} has {shape}", fix="give the base the adapters were trained on")
        square = out == width
        found[names[module]] = (module, (conv1d and not module.endswith("lm_head")) if square else fits[shape])
    return found


def fold(
    base: BaseWeights,
    matches: dict[str, tuple[str, bool]],
    delta_of: Callable[[str], Delta],
    out: Path,
    dtype: str | None = None,
) -> Folded:
    """Write a model whose weights hold the merged changes, one shard, one tensor and one block of rows at a time.

    Sums are formed in float64 and rounded once. Tensors that no module changes, tied embeddings among them, are copied. A block is
    some 2^18 numbers, so memory does not grow with the model; of a rule of full rank it holds one weight's change, in float32.

    Source: LoRA (Hu et al. 2021, section 4.1): W = W0 + B A.
    Departures: one rounding at the end, where the usual code rounds after each adapter.

    Args:
        base: The base model.
        matches: From `match_modules`.
        delta_of: Returns a module's merged change.
        out: A new folder.
        dtype: "float32", "bfloat16" or "float16" for all float tensors; None keeps each tensor's own.

    Returns:
        What each cast lost, and hashes for `check_folded`.

    Raises:
        ArtifactError: A weight to change is quantised or does not fit `dtype`.
        ResourceError: The disk has too little room.
    """
    _require_room(base, out.parent, dtype)
    out.mkdir(parents=True)
    result = Folded()
    total = 0
    for name, shard in base.files.items():
        layout = {t: (_target(shard, t, dtype), info.shape) for t, info in shard.tensors.items()}
        with TensorWriter(out / name, layout, shard.metadata) as writer:
            for tensor, (kind, _) in layout.items():
                if tensor in matches:
                    module, flip = matches[tensor]
                    result.errors[module] = _add(writer, shard, tensor, _rows_of(delta_of(module), flip), kind, module)
                else:
                    _copy(writer, shard, tensor, kind)
        result.sha256[name] = writer.sha256
        total += sum(math.prod(shape) * width_of(kind) for kind, shape in layout.values())
    _copy_rest(base, out, dtype, total)
    return result


def check_folded(folder: Path, sha256: Mapping[str, str]) -> None:
    """Read a folded model back and compare it with what was written.

    Args:
        folder: The model's folder.
        sha256: From `fold`.

    Raises:
        ArtifactError: A file is missing, extra or different.
    """
    found = {name: file.scan()[0] for name, file in open_base(folder).files.items()}
    odd = sorted(name for name in {*found, *sha256} if found.get(name) != sha256.get(name))
    if odd:
        raise ArtifactError(f"{len(odd)} files of the folded model are not what was written: {', '.join(odd[:3])}", fix="check the disk and merge again")


def _copy(writer: TensorWriter, shard: TensorFile, tensor: str, kind: str) -> None:
    """Write a tensor as it is, or rounded to another dtype."""
    same = kind == shard.tensors[tensor].dtype
    for piece in shard.pieces(tensor) if same else (narrow(p, kind) for p in shard.floats(tensor)):
        writer.write(piece)


def _add(writer: TensorWriter, shard: TensorFile, tensor: str, change: Callable[[slice], Matrix], kind: str, module: str) -> FoldError:
    """Write a weight plus its change, rounded once, block of rows by block of rows."""
    height, width = shard.tensors[tensor].shape

    def block(start: int) -> tuple[NDArray[np.generic], tuple[float, float, float]]:
        stop = min(start + rows, height)
        step = change(slice(start, stop))
        new = shard.rows(tensor, start, stop) + step
        stored = narrow(new, kind)
        back = widen(stored, kind)
        if not np.isfinite(back).all():
            raise ArtifactError(f"module {module}: the folded weight does not fit {kind}", fix="use --dtype float32 or bfloat16")
        return stored, (_energy(back - new), _energy(new), _energy(step))

    rows = max(1, _ENTRIES // width)
    sums = np.zeros(3)
    for stored, energies in side_by_side(block, range(0, height, rows)):
        writer.write(stored)
        sums += energies
    lost, exact, added = sums
    return FoldError(math.sqrt(lost / exact) if exact else 0.0, math.sqrt(lost / added) if added else 0.0)


def _energy(block: Matrix) -> float:
    return float(np.einsum("ij,ij->", block, block))


def _rows_of(delta: Delta, flip: bool) -> Callable[[slice], Matrix]:
    """Return what forms rows of a change, or of its transpose, in float64."""
    if isinstance(delta, Dense):
        matrix = delta.matrix.T if flip else delta.matrix
        return lambda rows: matrix[rows].astype(np.float64)
    left, right = (delta.A.T, delta.B.T) if flip else (delta.B, delta.A)
    return lambda rows: outer(left[rows], right)


def _target(shard: TensorFile, tensor: str, dtype: str | None) -> str:
    own = shard.tensors[tensor].dtype
    return stored_type(dtype, own) if own in _SMALL_FLOATS else own


def _require_room(base: BaseWeights, folder: Path, dtype: str | None) -> None:
    own = sum(f.path.stat().st_size for f in base.files.values())
    needed = own * 2 if dtype == "float32" else own
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(f"the folded model needs {needed} bytes, {folder} has {free} free", fix="free some space, or use --rank-out cat")


def _copy_rest(base: BaseWeights, out: Path, dtype: str | None, total: int) -> None:
    for path in sorted(base.folder.iterdir()):
        if path.is_file() and path.suffix not in _NOT_COPIED and path.name != _INDEX and not path.name.startswith("."):
            shutil.copyfile(path, out / path.name)
    index = base.folder / _INDEX
    if index.is_file():
        record = json.loads(index.read_text(encoding="utf-8"))
        record.setdefault("metadata", {})["total_size"] = total
        (out / _INDEX).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if dtype is not None:
        assert dtype in DTYPES
        key = "torch_dtype" if "torch_dtype" in base.config else "dtype"
        (out / "config.json").write_text(json.dumps({**base.config, key: dtype}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
