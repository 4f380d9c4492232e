"""How the commands that are made of other commands run them."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from recmerge.cli.invoke import invoke
from recmerge.errors import ArtifactError, ConfigError, ConflictError, DataError, GateError, Interrupted, NetworkError, RecmergeError, ResourceError, UsageError

_BY_CODE = {kind.code: kind for kind in (ArtifactError, ConfigError, ConflictError, DataError, GateError, NetworkError, ResourceError, UsageError)}


class InProcess:
    """Runs commands in this process, one at a time, so that heavy packages are imported once.

    Args:
        workspace: Their workspace.
        quiet: Show no progress.
    """

    def __init__(self, workspace: Path, *, quiet: bool) -> None:
        self._more = ["--workspace", str(workspace), "--quiet" if quiet else "--verbose"]

    def __call__(self, words: list[str], label: str) -> dict[str, Any]:
        """Run one command.

        Args:
            words: The words after `recmerge`.
            label: Not shown: the progress of one command at a time needs no name.

        Returns:
            Its JSON document.
        """
        return invoke([*words, *self._more, *_hush(words)])

    def stop(self) -> None:
        """Do nothing: an interruption ends the command itself."""


class Subprocesses:
    """Runs each command as a process of its own; their progress is shown line by line behind their labels.

    Args:
        workspace: Their workspace.
        jobs: How many run at a time; they share the cores.
        quiet: Show no progress.
    """

    def __init__(self, workspace: Path, jobs: int, *, quiet: bool) -> None:
        self._more = ["--json", "--workspace", str(workspace), "--quiet" if quiet else "--verbose"]
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        self._env = {"OMP_NUM_THREADS": threads, **os.environ}
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __call__(self, words: list[str], label: str) -> dict[str, Any]:
        """Run one command.

        Args:
            words: The words after `recmerge`.
            label: Stands before its lines of progress.

        Returns:
            Its JSON document.

        Raises:
            RecmergeError: The error that the command printed.
        """
        command = [sys.executable, "-m", "recmerge", *words, *self._more, *_hush(words)]
        with self._lock:
            if self._stopped:
                raise Interrupted(2, "stopped before it began")
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._env, errors="replace")
            self._running.add(process)
        errors: list[str] = []
        reader = threading.Thread(target=_relay, args=(process, label, errors))
        reader.start()
        assert process.stdout is not None  # a pipe was asked for
        out = process.stdout.read()
        code = process.wait()
        reader.join()
        self._running.discard(process)
        if code:
            raise _error(code, errors[-1] if errors else "")
        document: dict[str, Any] = json.loads(out)
        return document

    def stop(self) -> None:
        """End the commands that still run, as Ctrl-C would: they keep what they have."""
        with self._lock:
            self._stopped = True
            for process in list(self._running):
                process.terminate()


def _hush(words: list[str]) -> list[str]:
    """Keep an evaluation's own table off the screen: the ablation shows one for all."""
    return ["--quiet"] if words[0] == "eval" else []


def _relay(process: "subprocess.Popen[str]", label: str, errors: list[str]) -> None:
    assert process.stderr is not None  # a pipe was asked for
    for line in process.stderr:
        if line.startswith("error["):
            errors.append(line.rstrip("\n"))
        elif line.strip():
            print(f"{label}: {line.rstrip()}", file=sys.stderr, flush=True)


def _error(code: int, line: str) -> RecmergeError:
    """Turn a command's exit code and error line back into its error."""
    if code < 0 or code > 128:
        return Interrupted(abs(code) % 128, line or f"ended by signal {abs(code) % 128}")
    name, _, text = line.removeprefix("error[").partition("]: ")
    what, _, fix = text.partition("; fix: ")
    return _BY_CODE.get(name, RecmergeError)(what or f"exit code {code}", fix=fix)
