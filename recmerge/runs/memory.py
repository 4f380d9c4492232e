"""How much memory there is, for what knows beforehand how much it needs."""

from pathlib import Path


def available_memory() -> int | None:
    """Return the bytes that can be had without swapping; None where the system does not say (it is not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
