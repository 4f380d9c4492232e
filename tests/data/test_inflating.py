"""A large gzipped file is decompressed by a process of its own, and whatever becomes of that process the lines and the errors are the same."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recmerge.data.sources import files, inflating
from recmerge.data.sources.files import blocks
from recmerge.data.sources.inflating import inflated
from recmerge.errors import DataError

LINES = [f'{{"user": "u{i}", "n": {i * i}}}' + " " * (i % 7) for i in range(2000)]
WHOLE = "".join(line + "\n" for line in LINES).encode()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give even small files a process, with slots that they fill many times."""
    monkeypatch.setattr(files, "_OWN_PROCESS", 0)
    monkeypatch.setattr(inflating, "_SLOT", 1000)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """Return the processes that are started."""
    found: list[subprocess.Popen[bytes]] = []

    class Kept(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            found.append(self)

    monkeypatch.setattr(subprocess, "Popen", Kept)
    return found


def write(folder: Path, data: bytes, name: str = "reviews.json.gz") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def text_and_numbers_of(path: Path) -> bytes:
    """Return what the blocks hold, having checked that each is whole lines and knows its number."""
    read = b""
    for line, block in blocks(path):
        assert line == 1 + read.count(b"\n")
        assert block.endswith(b"\n")
        read += block
    return read


CONTENTS = {
    "whole lines": WHOLE,
    "no line end at the end": WHOLE[:-1],
    "blanks at the end": WHOLE + b"  ",
    "carriage returns": WHOLE.replace(b"\n", b"\r\n"),
    "blank lines": WHOLE.replace(b"\n", b"\n\n\n"),
    "a line as long as a slot": b"a\n" + b"b" * 999 + b"\nc\n",
    "an open line as long as a slot": b"b" * 1000,
    "a line longer than a slot": WHOLE + b"b" * 1001 + b"\n" + WHOLE,
    "a line much longer than a slot": b"a\n" + b"b" * 5000 + b"\nc",
    "one line": b"a",
    "nothing": b"",
}


@pytest.mark.parametrize("name", CONTENTS)
def test_the_lines_are_those_of_the_file(tmp_path: Path, name: str, started: list[Any]) -> None:
    data = CONTENTS[name]
    path = write(tmp_path, gzip.compress(data))
    assert text_and_numbers_of(path).rstrip() == data.rstrip()  # blanks behind the last line count as no line
    assert len(started) == 1
    assert started[0].returncode is not None


def test_the_process_reads_all_of_a_sound_file(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(WHOLE[:20_000]) + gzip.compress(WHOLE[20_000:]))  # two members
    read = list(inflated(path))
    assert b"".join(read) == WHOLE
    assert read[-1] == b""
    assert len(read) > len(WHOLE) // 1000


@pytest.mark.parametrize("fault", ["cut short", "damaged near byte", "swells to more than 200 times"])
def test_errors_are_those_of_reading_without_a_process(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch, started: list[Any]) -> None:
    whole = gzip.compress(WHOLE)
    middle = len(whole) // 2
    spoilt = {
        "cut short": whole[:-200],
        "damaged near byte": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
        "swells to more than 200 times": gzip.compress(b"\n" * (100 << 20)),
    }[fault]
    monkeypatch.setattr(inflating, "_SLOT", 1 << 19 if "swells" in fault else 1000)
    path = write(tmp_path, spoilt)
    with pytest.raises(DataError, match=fault) as with_process:
        list(blocks(path))
    monkeypatch.setattr(files, "_OWN_PROCESS", 1 << 30)
    with pytest.raises(DataError) as without:
        list(blocks(path))
    assert str(with_process.value) == str(without.value)
    assert len(started) == 1


@pytest.mark.parametrize("n_before", [1, 30])
def test_a_process_that_is_killed_costs_no_line(tmp_path: Path, n_before: int, started: list[Any]) -> None:
    path, read = write(tmp_path, gzip.compress(WHOLE)), b""
    for n, (line, block) in enumerate(blocks(path), 1):
        assert line == 1 + read.count(b"\n")
        read += block
        if n == n_before:
            started[0].kill()
    assert read == WHOLE


@pytest.mark.parametrize("executable", ["", "/no/such/python"])
def test_where_no_process_can_be_started_the_file_is_read_all_the_same(tmp_path: Path, executable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    assert text_and_numbers_of(write(tmp_path, gzip.compress(WHOLE))) == WHOLE


def test_a_reader_that_stops_ends_the_process(tmp_path: Path, started: list[Any]) -> None:
    def read() -> None:
        for _ in blocks(write(tmp_path, gzip.compress(WHOLE))):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read()
    assert started[0].wait(10) is not None


def test_the_process_ends_with_the_one_that_reads(tmp_path: Path) -> None:
    path, slots = write(tmp_path, gzip.compress(WHOLE)), write(tmp_path, bytes(8 * 1000), "slots")
    words = [sys.executable, "-P", inflating.__file__, path, slots, "1000"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=30)  # nobody frees a slot
    lengths = [int.from_bytes(done.stdout[i : i + 4], "little") for i in range(0, len(done.stdout), 4)]
    assert len(lengths) == 8
    assert slots.read_bytes()[: lengths[0]] == WHOLE[: lengths[0]]


def test_small_and_plain_files_need_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any]) -> None:
    assert text_and_numbers_of(write(tmp_path, WHOLE, "plain.json")) == WHOLE
    monkeypatch.setattr(files, "_OWN_PROCESS", 16 << 20)
    assert text_and_numbers_of(write(tmp_path, gzip.compress(WHOLE))) == WHOLE
    assert not started
