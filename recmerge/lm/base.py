"""Load a base model and its tokenizer, from disk or by Hugging Face id, and know it again."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as hf_logging

import recmerge
from recmerge.errors import ArtifactError, NetworkError, ResourceError
from recmerge.names import ADAPTER_CARD, MODEL_DIR


def hush() -> None:
    """Keep transformers from writing bars and notes of its own between ours."""
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()


hush()

_HASH_WHOLE = 1 << 30  # weights up to this many bytes are hashed whole
_EDGE = 1 << 20


@dataclass(frozen=True)
class BaseRef:
    """Which base model is meant.

    Args:
        ref: As the user wrote it, or an absolute folder.
        source: What transformers is given: a folder or a Hugging Face id.
        revision: Of a Hugging Face id; None for folders.
        trust_remote_code: Run code that the model's repository brings.
    """

    ref: str
    source: str
    revision: str | None = None
    trust_remote_code: bool = False

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for a Hugging Face id."""
        return Path(self.source) if Path(self.source).is_dir() else None


def shipped_base(name: str) -> Path | None:
    """Return the folder of a base model that ships with recmerge, or None."""
    folder = Path(recmerge.__file__).parent / "assets" / "base" / name
    return folder if (folder / "config.json").is_file() else None


def find(ref: str, revision: str | None = None, trust_remote_code: bool = False) -> BaseRef:
    """Find a base model where no workspace is known.

    Args:
        ref: A shipped name, a folder, or a Hugging Face id.
        revision: Of a Hugging Face id.
        trust_remote_code: Allow the model's own code.

    Returns:
        The base; a ref that is nothing on this machine is taken for a Hugging Face id.

    Raises:
        ArtifactError: A folder that holds no model.
    """
    shipped = shipped_base(ref)
    if shipped is not None:
        return BaseRef(ref, str(shipped))
    for folder in (Path(ref).expanduser(), Path(ref).expanduser() / MODEL_DIR):
        if (folder / "config.json").is_file():
            return BaseRef(str(folder.resolve()), str(folder.resolve()), None, trust_remote_code)
    looks_like_path = ref.startswith((".", "/", "~")) or ref.count("/") > 1 or Path(ref).is_dir()
    if looks_like_path:
        raise ArtifactError(f"base '{ref}' holds no model: config.json is not there", fix="give the folder of a Hugging Face model, a shipped name or a run")
    return BaseRef(ref, ref, revision, trust_remote_code)


def base_card(folder: Path | None) -> dict[str, Any]:
    """Return what a base of our own knows of itself (its prompt style), or an empty dict."""
    path = folder / ADAPTER_CARD if folder else None
    if path is None or not path.is_file():
        return {}
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read: {error}", fix="fetch or make the base again") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} holds no JSON object", fix="fetch or make the base again")
    return found


def check_remote_code(base: BaseRef) -> None:
    """Refuse a model that wants to run its own code unless that is allowed and pinned.

    Args:
        base: Which model.

    Raises:
        ArtifactError: It wants to and must not.
    """
    wants = False
    if base.folder is not None:
        for name in ("config.json", "tokenizer_config.json"):
            path = base.folder / name
            wants = wants or (path.is_file() and "auto_map" in _read_json(path))
    if base.trust_remote_code and base.folder is None and base.revision is None:
        raise ArtifactError(f"base '{base.ref}' may run its own code only at a pinned revision", fix="add --set revision=<commit hash>")
    if wants and not base.trust_remote_code:
        raise ArtifactError(
            f"base '{base.ref}' wants to run code of its own (auto_map), which is refused",
            fix="read that code, then add --trust-remote-code with a pinned revision",
        )


def load_tokenizer(base: BaseRef) -> Any:
    """Load the tokenizer of a base model.

    Args:
        base: Which model.

    Returns:
        The tokenizer.

    Raises:
        ArtifactError: It is missing or wants to run code.
        NetworkError: It is not on this machine and cannot be fetched.
    """
    check_remote_code(base)
    tokenizer = _load(AutoTokenizer, base)
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise ArtifactError(
            f"the tokenizer of base '{base.ref}' reads nothing in the letter a: its files are missing", fix="add the tokenizer's files to the base"
        )
    return tokenizer


def load_model(base: BaseRef, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a causal language model's weights.

    Args:
        base: Which model.
        device: Where to put it.
        dtype: Of its weights in memory.

    Returns:
        The model in eval mode.

    Raises:
        ArtifactError: It is missing, broken or wants to run code.
        NetworkError: It is not on this machine and cannot be fetched.
        ResourceError: It does not fit the device.
    """
    check_remote_code(base)
    model, about = _load(AutoModelForCausalLM, base, dtype=dtype, output_loading_info=True)
    lacking = sorted(about["missing_keys"])
    if lacking:
        raise ArtifactError(
            f"the weights of base '{base.ref}' lack {len(lacking)} that its config.json asks for, e.g. {lacking[0]}",
            fix="give the files of a causal language model that belong together",
        )
    try:
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise ResourceError(f"base '{base.ref}' does not fit on {device}", fix="use bf16, a smaller base, or --device cpu") from error


def _load(kind: Any, base: BaseRef, **options: Any) -> Any:
    try:
        return kind.from_pretrained(base.source, revision=base.revision, trust_remote_code=base.trust_remote_code, **options)
    except (OSError, ValueError, ImportError) as error:
        text = " ".join(str(error).split())
        if base.folder is None and _looks_offline(text):
            raise NetworkError(
                f"base '{base.ref}' is not on this machine and the model hub cannot be reached",
                fix="download it where there is a network and give its folder, or check its id",
            ) from error
        if "trust_remote_code" in text or "custom code" in text:
            raise ArtifactError(
                f"base '{base.ref}' wants to run code of its own, which is refused",
                fix="read that code, then add --trust-remote-code with a pinned revision",
            ) from error
        raise ArtifactError(f"base '{base.ref}' cannot be loaded: {text[:200]}", fix="give a folder or id of a Hugging Face causal language model") from error
    except Exception as error:  # safetensors has its own error type
        if type(error).__name__ == "SafetensorError":
            raise ArtifactError(f"the weights of base '{base.ref}' are damaged: {error}", fix="fetch or make the base again") from error
        raise


def _looks_offline(text: str) -> bool:
    signs = ("couldn't connect", "offline", "connection", "cannot find the requested files", "not a valid model identifier", "resolve", "local cache", "locate")
    return any(sign in text.lower() for sign in signs)


def fingerprint(base: BaseRef) -> str:
    """Return a hash that tells base models apart.

    A folder: its config and weights (of weights above 1 GiB the header, ends and size). A Hugging Face id: id and the commit it resolved to.
    """
    check_remote_code(base)  # reading a hub model's config can run its code already
    digest = hashlib.sha256()
    if base.folder is None:
        config = _load(AutoConfig, base)
        digest.update(f"{base.source}@{config._commit_hash or base.revision}".encode())
        return digest.hexdigest()
    for path in sorted(base.folder.glob("*.safetensors")) + sorted(base.folder.glob("*.bin")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as f:
            if size <= _HASH_WHOLE:
                digest.update(hashlib.file_digest(f, "sha256").digest())
            else:
                digest.update(f.read(_EDGE))
                f.seek(-_EDGE, os.SEEK_END)
                digest.update(f.read())
    config_path = base.folder / "config.json"
    digest.update(config_path.read_bytes() if config_path.is_file() else b"")
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: Any) -> str:
    """Return a hash of a tokenizer's vocabulary, special tokens and chat template."""
    parts = {
        "vocab": sorted(tokenizer.get_vocab().items()),
        "special": {k: str(v) for k, v in tokenizer.special_tokens_map.items()},
        "template": str(tokenizer.chat_template),
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts["backend"] = backend.to_str() if backend is not None else ""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
