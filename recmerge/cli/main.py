"""The `recmerge` command: parse, run, and turn every error into one line and an exit code."""

import contextlib
import os
import signal
import sys
import warnings
from typing import Any

import typer

from recmerge.cli.invoke import as_known, dispatch
from recmerge.errors import Interrupted


def _register() -> None:
    """Import the command files; each registers itself and imports its heavy parts only when called."""
    from recmerge.cli import ablate, base, data, demo, doctor, evaluate, infer, merge, runs, train  # noqa: F401


def main(argv: list[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The words after `recmerge`; the process's own by default.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if argv is None else argv
    _register()
    debug = "--debug" in words
    if not debug:
        warnings.filterwarnings("ignore", category=FutureWarning)  # of other libraries, to their developers
        warnings.filterwarnings("ignore", category=DeprecationWarning)
    with _terminate_as_interrupt():
        try:
            result = dispatch(words)
            sys.stdout.flush()
        except BaseException as error:
            if debug and not isinstance(error, (typer.Exit, SystemExit, typer.TyperException)):
                import traceback

                traceback.print_exc()
            return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> int:
    """Print an error as one line on stderr and return its exit code."""
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):  # `| head` closed our stdout: not an error
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, (typer.Exit, SystemExit)):
        code = error.exit_code if isinstance(error, typer.Exit) else error.code
        return code if isinstance(code, int) else 0
    known = as_known(error)
    print(known.line(), file=sys.stderr, flush=True)
    return known.exit_code


@contextlib.contextmanager
def _terminate_as_interrupt() -> Any:
    """Turn SIGTERM into an exception, so that a run is marked and its lock freed."""

    def stop(signum: int, frame: object) -> None:
        raise Interrupted(signum, "stopped by SIGTERM", fix="run the same command again")

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: leave signals alone
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(main())
