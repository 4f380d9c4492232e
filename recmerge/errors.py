"""Every error a user can meet: one line, an exit code, and what to do next."""

import difflib
from collections.abc import Iterable

_JOINERS = "\u200c\u200d"  # part of how Persian, Hindi and some emoji are written


class RecmergeError(Exception):
    """An error with a message for the user instead of a traceback.

    Args:
        what: What is wrong, with the offending value and what is allowed; one line.
        fix: What the user can do about it; one line, or empty.
    """

    exit_code = 1
    code = "BUG"

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def line(self) -> str:
        """Return the one line printed on stderr."""
        text = f"error[{self.code}]: {self.what}"
        if self.fix:
            text += f"; fix: {self.fix}"
        return printable(text)


class UsageError(RecmergeError):
    """Wrong flags or arguments."""

    exit_code = 2
    code = "USAGE"


class ConfigError(RecmergeError):
    """A YAML file or an override that does not fit its schema."""

    exit_code = 2
    code = "CONFIG"


class DataError(RecmergeError):
    """Input data that cannot be used."""

    exit_code = 3
    code = "DATA"


class ArtifactError(RecmergeError):
    """A run, adapter or model that is missing, corrupt or incompatible."""

    exit_code = 4
    code = "ARTIFACT"


class ResourceError(RecmergeError):
    """Not enough disk or memory, or a device that is not there."""

    exit_code = 5
    code = "RESOURCE"


class NetworkError(RecmergeError):
    """A download that failed."""

    exit_code = 6
    code = "NETWORK"


class ConflictError(RecmergeError):
    """Something is locked, exists already, or changed since."""

    exit_code = 7
    code = "CONFLICT"


class GateError(RecmergeError):
    """A quality gate failed."""

    exit_code = 8
    code = "GATE"


class Interrupted(RecmergeError):  # noqa: N818  (it is not the user's error)
    """A signal ended the command; what was done so far is kept.

    Args:
        signum: The signal's number; the exit code is 128 + signum.
        what: What was interrupted.
        fix: How to go on.
    """

    code = "INTERRUPTED"

    def __init__(self, signum: int, what: str, *, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.signum = signum
        self.exit_code = 128 + signum


def printable(text: str) -> str:
    """Return `text` on one line, without control characters a terminal would obey."""
    flat = " ".join(text.split())
    if flat.isprintable():
        return flat
    around = zip(f" {flat}", flat, f"{flat[1:]} ", strict=False)
    return "".join(c if c.isprintable() or (c in _JOINERS and _joins(before, after)) else f"\\x{ord(c):02x}" for before, c, after in around)


def _joins(before: str, after: str) -> bool:
    return all(c.isprintable() and not c.isascii() for c in (before, after))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device has no memory left; known without importing torch, which of a CPU says so only in words."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that a name is unknown, with the nearest known one and the list.

    Args:
        kind: What the name should be, e.g. "merge method".
        name: The name that was given.
        known: The names that exist.

    Returns:
        One line without a final full stop.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f", did you mean '{near[0]}'?" if near else ""
    return f"unknown {kind} '{name}'{hint} known: {', '.join(names) or 'none'}"
