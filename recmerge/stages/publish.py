"""Put a copy of a finished adapter or model where a user wants it, all of it or nothing."""

import os
import shutil
from pathlib import Path

from recmerge.errors import ConflictError
from recmerge.lm.adapter_file import CONFIG_FILE
from recmerge.names import MODEL_DIR


def check_destination(folder: Path, force: bool, folded: bool) -> None:
    """Refuse to publish over something, before any work is done.

    Args:
        folder: Where a copy should go.
        force: Replace an adapter (or model) that is there.
        folded: Whether a model is published, not an adapter.

    Raises:
        ConflictError: It exists and must not be replaced.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not force:
        raise ConflictError(f"{folder} exists", fix="choose another --out, or add --force to replace it")
    own = "config.json" if folded else CONFIG_FILE
    if folder.is_symlink() or not folder.is_dir() or (any(folder.iterdir()) and not (folder / own).is_file()):
        raise ConflictError(f"{folder} holds something else than a {'model' if folded else 'adapter'} and is not replaced", fix="choose another --out")


def publish(made: Path, folder: Path, force: bool) -> None:
    """Put a copy of a finished result at `folder`; the old one stays until the new one is complete.

    Args:
        made: The run's `adapter/` or `model/`.
        folder: Where the copy goes.
        force: Replace an adapter (or model) that is there.

    Raises:
        ConflictError: It exists and must not be replaced.
    """
    folder = folder.absolute()
    check_destination(folder, force, made.name == MODEL_DIR)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{tail}") for tail in ("new", "old"))
    try:
        shutil.copytree(made, fresh)
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
