"""How long the command line takes to answer: the median of several cold processes, in seconds."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 7
COMMANDS = (["--help"], ["train", "--help"], ["runs", "list"], ["doctor", "--json"], ["ablate", "demo", "--dry-run", "--json"])


def seconds(words: list[str]) -> float:
    """Time one process; it must succeed."""
    start = time.perf_counter()
    subprocess.run([str(Path(sys.executable).with_name("recmerge")), *words], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    for words in COMMANDS:
        seconds(words)  # once for the file cache
        times = [seconds(words) for _ in range(REPEATS)]
        print(f"recmerge {' '.join(words):40} {statistics.median(times):6.3f} s (fastest {min(times):.3f})")


if __name__ == "__main__":
    main()
