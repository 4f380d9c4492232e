"""Where a model is trained or asked."""

import os

import torch

from recmerge.errors import ResourceError


def pick_device(wanted: str) -> torch.device:
    """Return the device to use; a GPU that was asked for is never silently replaced.

    Args:
        wanted: auto, cpu or cuda.

    Returns:
        The device; under torchrun each process has its own GPU.

    Raises:
        ResourceError: A GPU is wanted and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ResourceError("device 'cuda' is asked for and no usable GPU is found", fix="use --device cpu, or install a CUDA build of torch and its driver")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
