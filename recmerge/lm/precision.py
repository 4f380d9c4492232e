"""In which precision a model is asked."""

from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def pick_precision(wanted: Literal["fp32", "bf16", "auto"], device: torch.device) -> Precision:
    """Return the precision to use: of `auto`, bf16 where the hardware multiplies it, fp32 where that would be emulated.

    Args:
        wanted: fp32, bf16 or auto.
        device: Where the model is asked.

    Returns:
        fp32 or bf16.
    """
    if wanted == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    return wanted


def multiplies_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for products of bf16: a GPU's tensor cores, a CPU's AMX or AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    tests = [getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")]  # torch has no public name for these
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and any(test() for test in tests if test is not None)


def torch_dtype(precision: Precision) -> torch.dtype:
    """Return torch's name of a precision."""
    return torch.bfloat16 if precision == "bf16" else torch.float32
