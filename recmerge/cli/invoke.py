"""Run a command inside this process, and turn any error into one that a user understands."""

import contextlib
import errno
import io
import json
import signal
import sys
from typing import Any

import typer

from recmerge.cli.apps import app
from recmerge.errors import Interrupted, RecmergeError, ResourceError, UsageError, printable


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
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ResourceError(f"out of memory: {printable(str(error))[:200]}", fix="lower the batch size or max_length")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return ResourceError(f"the disk is full: {error.filename or error}", fix="free some space and run the same command again")
    if isinstance(error, PermissionError):
        return ResourceError(f"no permission: {error.filename or error}", fix="mend its permissions or choose another --workspace")
    return RecmergeError(
        f"a bug of recmerge's own: {type(error).__name__}: {printable(str(error))[:300]}",
        fix="run again with --debug and report the traceback",
    )
