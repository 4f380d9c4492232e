import gzip
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recmerge.data.fetching import LOCK_FILE, check_disk, complete, fetch_file, locate, record, survey
from recmerge.data.official import OFFICIAL, RemoteFile, official_files, raw_paths
from recmerge.errors import NetworkError, ResourceError, UsageError
from recmerge.runs.reporter import SilentReporter

BODY = gzip.compress(b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(3000)))


@dataclass
class Script:
    """How the server behaves, and what it was asked."""

    body: bytes = BODY
    etag: str = '"one"'
    ranges: bool = True
    head: int = 200
    announced: int | None = None  # the size that HEAD tells, where it lies
    status: int = 200
    fail_first: int = 0
    cut_at: list[int] = field(default_factory=list)  # bytes of each coming answer before the line drops
    asked: list[tuple[str, str | None]] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    script: Script

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.script.asked.append(("HEAD", None))
        self.send_response(self.script.head)
        if self.script.head == 200:
            self.send_header("Content-Length", str(self.script.announced or len(self.script.body)))
            self.send_header("ETag", self.script.etag)
        self.end_headers()

    def do_GET(self) -> None:
        script = self.script
        wanted = self.headers.get("Range")
        script.asked.append(("GET", wanted))
        if script.fail_first:
            script.fail_first -= 1
            self.send_error(503)
            return
        if script.status != 200:
            self.send_error(script.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and script.ranges and self.headers.get("If-Range") == script.etag else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(script.body) - 1}/{len(script.body)}")
        self.send_header("Content-Length", str(len(script.body) - start))
        self.send_header("ETag", script.etag)
        self.end_headers()
        data = script.body[start:]
        self.wfile.write(data[: script.cut_at.pop(0)] if script.cut_at else data)


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def remote_file(script: Script) -> Iterator[RemoteFile]:
    handler = type("Scripted", (Handler,), {"script": script})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield RemoteFile("reviews", f"http://127.0.0.1:{server.server_address[1]}/reviews.json.gz")
        server.shutdown()


def get(file: RemoteFile, folder: Path) -> Path:
    return fetch_file(survey(file, file.url, pause=0), folder, SilentReporter(), pause=0)


def test_a_plain_download(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    assert get(remote_file, tmp_path).read_bytes() == BODY
    assert script.asked == [("HEAD", None), ("GET", None)]
    assert [p.name for p in tmp_path.iterdir()] == ["reviews.json.gz"]


def test_a_dropped_line_is_resumed_where_it_broke(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.cut_at = [1000, 500]
    assert get(remote_file, tmp_path).read_bytes() == BODY
    assert [r for _, r in script.asked[1:]] == [None, "bytes=1000-", "bytes=1500-"]


def test_the_next_command_goes_on_from_there(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.cut_at = [1000, 0, 0, 0, 0]
    with pytest.raises(NetworkError, match=rf"broke off 5 times, at 1,000 of {len(BODY):,}"):
        get(remote_file, tmp_path)
    assert not (tmp_path / "reviews.json.gz").exists()
    script.asked.clear()
    assert get(remote_file, tmp_path).read_bytes() == BODY
    assert script.asked[-1] == ("GET", "bytes=1000-")


def test_a_server_without_ranges_starts_again(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.ranges, script.cut_at = False, [1000]
    assert get(remote_file, tmp_path).read_bytes() == BODY


def test_a_file_that_changed_meanwhile_is_not_glued_together(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.cut_at = [1000, 0, 0, 0, 0]
    with pytest.raises(NetworkError):
        get(remote_file, tmp_path)
    script.body, script.etag = gzip.compress(b"another file"), '"two"'
    assert get(remote_file, tmp_path).read_bytes() == script.body


def test_a_busy_server_is_asked_again(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.fail_first = 3
    assert get(remote_file, tmp_path).read_bytes() == BODY
    assert len(script.asked) == 5


def test_a_missing_file_is_not_asked_for_again(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.head = 404
    with pytest.raises(NetworkError, match="answers 404"):
        get(remote_file, tmp_path)
    script.head, script.status = 405, 404  # refuses HEAD, so the file itself is tried
    with pytest.raises(NetworkError, match="answers 404"):
        get(remote_file, tmp_path)
    assert [m for m, _ in script.asked] == ["HEAD", "HEAD", "GET"]


def test_a_server_that_refuses_head_still_gives_the_file(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.head = 405
    assert get(remote_file, tmp_path).read_bytes() == BODY


def test_an_error_page_with_status_200_is_refused(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.body = b"<html>we are down</html>"
    with pytest.raises(NetworkError, match=r"is a web page, not a \.gz file"):
        get(remote_file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_checksum_is_refused(remote_file: RemoteFile, tmp_path: Path) -> None:
    right = hashlib.md5(BODY).hexdigest()
    assert get(RemoteFile("reviews", remote_file.url, right), tmp_path).exists()
    with pytest.raises(NetworkError, match=f"md5 {right}, published is 0000"):
        get(RemoteFile("reviews", remote_file.url, "0" * 32), tmp_path / ".")


def test_another_size_than_announced_is_refused(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    script.announced = len(BODY) + 1
    with pytest.raises(NetworkError, match=rf"has {len(BODY):,} bytes, {len(BODY) + 1:,} were announced"):
        get(remote_file, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_the_lock_file_recorded_is_held_to(remote_file: RemoteFile, script: Script, tmp_path: Path) -> None:
    get(remote_file, tmp_path)
    record(tmp_path, survey(remote_file, remote_file.url))
    assert get(remote_file, tmp_path).read_bytes() == BODY
    script.body, script.etag = gzip.compress(b"another file"), '"two"'
    with pytest.raises(NetworkError, match=r"has sha256 .{16}\.\.\., lock\.json recorded"):
        get(remote_file, tmp_path)
    assert (tmp_path / "reviews.json.gz").read_bytes() == BODY
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock.json", "reviews.json.gz"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_meanwhile(remote_file: RemoteFile, tmp_path: Path) -> None:
    part = tmp_path / "reviews.json.gz.part"
    part.symlink_to("/dev/full")
    with pytest.raises(ResourceError, match=rf"the disk is full: .*reviews\.json\.gz has {len(BODY):,} bytes, 0 have come, [\d,]+ are free"):
        get(remote_file, tmp_path)
    assert not (tmp_path / "reviews.json.gz").exists()
    part.unlink()
    assert get(remote_file, tmp_path).read_bytes() == BODY


def test_nobody_answers(tmp_path: Path) -> None:
    file = RemoteFile("reviews", "http://127.0.0.1:9/reviews.json.gz")
    with pytest.raises(NetworkError, match="cannot be reached"):
        survey(file, file.url, pause=0)


def test_mirrors(tmp_path: Path) -> None:
    file = RemoteFile("reviews", "https://example.org/x/reviews.json.gz")
    (tmp_path / "reviews.json.gz").write_bytes(BODY)
    assert locate(file, None) == file.url
    assert locate(file, "http://mirror/y/") == "http://mirror/y/reviews.json.gz"
    assert locate(file, "http://mirror/y/reviews.json.gz") == "http://mirror/y/reviews.json.gz"
    assert locate(file, str(tmp_path)) == locate(file, str(tmp_path / "reviews.json.gz")) == str(tmp_path / "reviews.json.gz")
    other = tmp_path / "meta.json.gz"
    other.write_bytes(BODY)
    assert locate(file, str(other)) == str(tmp_path / "reviews.json.gz")  # a neighbour's place stands for the folder
    folder = tmp_path / "raw"
    folder.mkdir()
    remote = survey(file, locate(file, str(tmp_path)))
    assert remote.size == len(BODY)
    assert fetch_file(remote, folder, SilentReporter()).read_bytes() == BODY
    with pytest.raises(NetworkError, match="mirror has no file"):
        survey(file, locate(file, str(tmp_path / "nowhere")))


def test_the_lock_file_records_what_came(remote_file: RemoteFile, tmp_path: Path) -> None:
    assert not complete(tmp_path, [remote_file])
    remote = survey(remote_file, remote_file.url)
    fetch_file(remote, tmp_path, SilentReporter())
    record(tmp_path, remote)
    entry = json.loads((tmp_path / LOCK_FILE).read_text())["files"]["reviews.json.gz"]
    assert entry["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert entry["bytes"] == len(BODY)
    assert complete(tmp_path, [remote_file])
    (tmp_path / "reviews.json.gz").write_bytes(BODY[:-1])
    assert not complete(tmp_path, [remote_file])


def test_a_download_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    check_disk(tmp_path, 1)
    with pytest.raises(ResourceError, match=r"needs 1,000,000,000,000,000,000 bytes, [\d,]+ are free"):
        check_disk(tmp_path, 10**18)


def test_official_places(tmp_path: Path) -> None:
    paths = raw_paths("amazon2014", "food", tmp_path)
    assert {role: p.name for role, p in paths.items()} == {
        "reviews": "reviews_Grocery_and_Gourmet_Food_5.json.gz",
        "meta": "meta_Grocery_and_Gourmet_Food.json.gz",
    }
    assert raw_paths("table", "food", tmp_path) == {}
    with pytest.raises(UsageError, match="did you mean 'sports'"):
        official_files("amazon2014", "sport")
    names = {domain: [f.name for f in official_files("amazon2023", domain)] for domain in ("beauty", "beauty-full", "fashion-full")}
    assert names == {
        "beauty": ["Beauty_and_Personal_Care.csv.gz", "meta_Beauty_and_Personal_Care.jsonl.gz"],
        "beauty-full": ["Beauty_and_Personal_Care.jsonl.gz", "meta_Beauty_and_Personal_Care.jsonl.gz"],
        "fashion-full": ["Amazon_Fashion.jsonl.gz", "meta_Amazon_Fashion.jsonl.gz"],
    }
    assert [f.url.rsplit("/", 2)[1:] for f in official_files("amazon2018", "fashion")] == [
        ["categoryFilesSmall", "AMAZON_FASHION_5.json.gz"],
        ["metaFiles2", "meta_AMAZON_FASHION.json.gz"],
    ]
    with pytest.raises(UsageError, match="did you mean 'fashion-full'"):  # its 5-core is empty, so none is published
        official_files("amazon2023", "fashion")
    assert {len(f.md5) for files in OFFICIAL["movielens"].domains.values() for f in files} == {32}
    for source in OFFICIAL.values():
        assert set(source.default) <= set(source.domains)
        assert all(f.url.startswith("https://") for files in source.domains.values() for f in files)
        every = {f for files in source.domains.values() for f in files}
        assert len({f.name for f in every}) == len(every)  # one folder holds them all
