"""Run a command inside this process, and turn any error into one that a user understands."""

import contextlib
import errno
import io
import json
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import typer

from recmerge.cli.apps import app
from recmerge.errors import Interrupted, RecmergeError, ResourceError, UsageError, is_out_of_memory, printable

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNFIT = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO, errno.EFBIG}
_RUST_ERRNO = re.compile(r"\(os error (\d+)\)")  # how polars tells an error of the system


def dispatch(words: list[str]) -> Any:
    """Run one command line; errors come as exceptions.

    Args:
        words: The words after `recmerge`.

    Returns:
        What the command returned.
    """
    return typer.main.get_command(app).main(args=words, prog_name="recmerge", standalone_mode=False)


def invoke(words: list[str]) -> dict[str, Any]:
    """Run one command line inside this process, for commands that are made of others.

    Args:
        words: The words after `recmerge`; `--json` is added.

    Returns:
        Its JSON document.

    Raises:
        RecmergeError: What the command failed with.
    """
    captured = io.StringIO()
    argv, sys.argv = sys.argv, [sys.argv[0], *words]  # manifests record the command as if it stood alone
    try:
        with contextlib.redirect_stdout(captured):
            dispatch([*words, "--json"])
        document: dict[str, Any] = json.loads(captured.getvalue())
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except BaseException as error:
        known = as_known(error)
        raise known from (None if known is error else error)
    finally:
        sys.argv = argv
    return document


def as_known(error: BaseException) -> RecmergeError:
    """Return the error to show for any exception; a bug of ours where it is none that we know."""
    if isinstance(error, RecmergeError):
        return error
    if isinstance(error, typer.TyperException):
        if type(error).__name__ == "NoArgsIsHelpError":
            return UsageError("a command is missing", fix="`recmerge --help` lists them")
        return UsageError(error.format_message().rstrip("."), fix="add --help to see what is allowed")
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Interrupted(signal.SIGINT, "stopped by the keyboard", fix="run the same command again")
    if is_out_of_memory(error):
        return ResourceError(f"out of memory: {printable(str(error))[:200]}", fix="lower the batch size or max_length")
    return _of_the_system(error) or RecmergeError(
        f"a bug of recmerge's own: {type(error).__name__}: {printable(str(error))[:300]}",
        fix="run again with --debug and report the traceback",
    )


def _of_the_system(error: BaseException) -> ResourceError | None:
    """Explain what the disk or its permissions refuse; None for any other error."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (isinstance(error, OSError) or type(error).__module__.startswith("polars")):
        told = _RUST_ERRNO.search(str(error))
        number = int(told[1]) if told else None
    name = getattr(error, "filename", None)
    what = printable(str(name or error))
    if number in _FULL:
        return ResourceError(f"the disk is full{_free_beside(name)}: {what}", fix="free some space and run the same command again")
    if number in _FORBIDDEN:
        reason = "read-only" if number == errno.EROFS else "no permission"
        return ResourceError(f"{reason}: {what}", fix="mend its permissions or choose another --workspace")
    if number in _UNFIT:
        return ResourceError(f"cannot read or write {what}: {getattr(error, 'strerror', None) or 'refused'}", fix="give another path or --workspace")
    return None


def _free_beside(name: object) -> str:
    try:
        return f", {shutil.disk_usage(Path(str(name)).parent).free:,} bytes are free" if name else ""
    except OSError:
        return ""
