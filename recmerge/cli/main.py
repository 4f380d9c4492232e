"""The `recmerge` command: parse, run, and turn every error into one line and an exit code."""

import contextlib
import errno
import io
import json
import os
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

import recmerge
from recmerge.errors import Interrupted, RecmergeError, printable

app = typer.Typer(
    name="recmerge",
    help="Weave LoRA adapters of several domains into one recommender (WeaveRec), and prove whether it helps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Fetch, build, mix, check, describe and export data sets.", no_args_is_help=True, rich_markup_mode=None)
base_app = typer.Typer(help="Make small base language models.", no_args_is_help=True, rich_markup_mode=None)
runs_app = typer.Typer(help="What exists, and from what it came.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(base_app, name="base")
app.add_typer(runs_app, name="runs")


def _version(value: bool) -> None:
    if value:
        print(f"recmerge {recmerge.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Weave LoRA adapters of several domains into one recommender."""


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
            result = typer.main.get_command(app).main(args=words, prog_name="recmerge", standalone_mode=False)
            sys.stdout.flush()
        except BaseException as error:
            if debug and not isinstance(error, (typer.Exit, SystemExit, typer.TyperException)):
                import traceback

                traceback.print_exc()
            return _explain(error)
    return result if isinstance(result, int) else 0


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
            typer.main.get_command(app).main(args=[*words, "--json"], prog_name="recmerge", standalone_mode=False)
        document: dict[str, Any] = json.loads(captured.getvalue())
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except BaseException as error:
        known = _as_known(error)
        raise known from (None if known is error else error)
    finally:
        sys.argv = argv
    return document


def _explain(error: BaseException) -> int:
    """Print an error as one line on stderr and return its exit code."""
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):  # `| head` closed our stdout: not an error
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, (typer.Exit, SystemExit)):
        code = error.exit_code if isinstance(error, typer.Exit) else error.code
        return code if isinstance(code, int) else 0
    known = _as_known(error)
    print(known.line(), file=sys.stderr, flush=True)
    return known.exit_code


def _as_known(error: BaseException) -> RecmergeError:
    from recmerge.errors import ResourceError, UsageError

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
