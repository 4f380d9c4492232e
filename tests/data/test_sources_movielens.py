"""Invented ratings in the shapes of every MovieLens set."""

import zipfile
from pathlib import Path

import pytest

from recmerge.data.sources import SOURCES, RawTables
from recmerge.errors import ArtifactError, DataError

GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical Mystery Romance Sci-Fi Thriller War Western"
)


def archive(path: Path, members: dict[str, str | bytes], encoding: str = "latin-1") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, text in members.items():
            zipped.writestr(name, text if isinstance(text, bytes) else text.encode(encoding))
    return path


def read(path: Path) -> RawTables:
    return SOURCES["movielens"].read({"archive": path}, {})


def rejected(raw: RawTables) -> list[tuple[str, int, str]]:
    return [(r.file, r.line, r.reason) for r in raw.rejects.found]


def flags(*names: str) -> str:
    return "|".join(str(int(g in names)) for g in GENRES.split())


def movie(item: str, title: str, *genres: str) -> str:
    return f"{item}|{title}|01-Jan-1995||http://us.imdb.com/M/title-exact?x|{flags(*genres)}"


def test_1m(tmp_path: Path) -> None:
    members = {
        "ml-1m/ratings.dat": "1::10::5::978300019\n2::20::3::978300020\nbroken line\n3::20::4::\n3::::4::978300021\n",
        "ml-1m/movies.dat": "10::Café: the\x85movie (1995)::Drama|Children's\n20::B (1996)::Drama\n30::No genre (1997)::\n",
    }
    raw = read(archive(tmp_path / "ml-1m.zip", members))
    assert raw.interactions.rows() == [("1", "10", 978300019), ("2", "20", 978300020), ("3", "20", None)]
    titles = [("10", "Café: the\x85movie (1995)", None, "Drama Children's"), ("20", "B (1996)", None, "Drama"), ("30", "No genre (1997)", None, None)]
    assert raw.items.rows() == titles
    assert rejected(raw) == [("ratings.dat", 3, "malformed"), ("ratings.dat", 5, "no_item")]
    assert raw.n_lines == 5 + 3


def test_10m_is_utf8(tmp_path: Path) -> None:
    members = {"ml-10M100K/ratings.dat": "1::10::3.5::978300019\n", "ml-10M100K/movies.dat": "10::Amélie — Ōkami (2001)::Drama\n"}
    raw = read(archive(tmp_path / "ml-10m.zip", members, encoding="utf-8"))
    assert raw.items["title"].to_list() == ["Amélie — Ōkami (2001)"]


@pytest.mark.parametrize("listed", [True, False])
def test_100k(tmp_path: Path, listed: bool) -> None:
    members = {
        "ml-100k/u.data": "196\t1\t3\t881250949\n186\t2\t3\t891717742\n\n22\t377\t1\n186\t267\t4\t891717743\n",
        "ml-100k/u.item": "\n".join(
            [
                movie("1", "Toy Story (1995)", "Animation", "Children's", "Comedy"),
                movie("2", "Ça (1996) &amp; more", "Film-Noir"),
                movie("267", "unknown", "unknown"),
                movie("1", "Toy Story (1995)", "Animation", "Children's", "Comedy"),
                "4|one flag only|01-Jan-1995||url|1",
            ]
        ),
        "ml-100k/u1.base": "1\t1\t1\t1\n",
    }
    if listed:
        members["ml-100k/u.genre"] = "\n".join(f"{g}|{i}" for i, g in enumerate(GENRES.split())) + "\n\n"
    raw = read(archive(tmp_path / "ml-100k.zip", members))
    assert raw.interactions.rows() == [("196", "1", 881250949), ("186", "2", 891717742), ("186", "267", 891717743)]
    assert raw.items.rows() == [
        ("1", "Toy Story (1995)", None, "Animation Children's Comedy"),
        ("2", "Ça (1996) &amp; more", None, "Film-Noir"),
        ("267", None, None, None),
    ]
    assert rejected(raw) == [("u.data", 4, "malformed"), ("u.item", 5, "malformed")]
    assert raw.counts == {"repeated_items": 1}
    assert raw.n_lines == 4 + 5


def test_the_genres_of_100k_are_named_by_its_own_list(tmp_path: Path) -> None:
    members = {"u.data": "1\t1\t3\t881250949\n", "u.item": "1|A|d||u|0|1\n", "u.genre": "Second|1\nFirst|0\n"}
    assert read(archive(tmp_path / "ml-100k.zip", members)).items["category"].to_list() == ["Second"]


def csv_members(ratings: str, movies: str) -> dict[str, str | bytes]:
    return {"ml-32m/ratings.csv": ratings.encode(), "ml-32m/movies.csv": movies.encode(), "ml-32m/tags.csv": b"userId,movieId,tag,timestamp\n"}


MOVIES = """movieId,title,genres
1,Toy Story (1995),Adventure|Animation
11,"American President, The (1995)",Comedy
12,"The ""Best"" of Amélie (2001)",(no genres listed)
"""


def test_20m_to_32m(tmp_path: Path) -> None:
    ratings = "userId,movieId,rating,timestamp\r\n1,11,4.5,1112486027\r\n1,12,3.5,1112484676\r\n2,1,4.0,1112484819\r\n"
    raw = read(archive(tmp_path / "ml-32m.zip", csv_members(ratings, MOVIES)))
    assert raw.interactions.rows() == [("1", "11", 1112486027), ("1", "12", 1112484676), ("2", "1", 1112484819)]
    assert raw.items.rows() == [
        ("1", "Toy Story (1995)", None, "Adventure Animation"),
        ("11", "American President, The (1995)", None, "Comedy"),
        ("12", 'The "Best" of Amélie (2001)', None, None),
    ]
    assert (raw.rejects.found, raw.n_lines) == ([], 6)


def test_bad_ratings_are_put_aside_and_a_stray_quote_swallows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "userId,movieId,rating,timestamp",
        "1,11,4.5,1112486027",
        "2,1",
        '"3,1,4.0,1112486028',
        "",
        "4,1,4.0,soon",
        "5,1,4.0,1112486029000",
        "6,1,4.0,",
        "7,1,4.0,1112486030,8",
        "9,12,4.0,1112486031",
    ]
    path = archive(tmp_path / "ml-20m.zip", csv_members("\n".join(lines), MOVIES))
    raw = read(path)
    assert raw.interactions.rows() == [("1", "11", 1112486027), ('"3', "1", 1112486028), ("6", "1", None), ("9", "12", 1112486031)]
    assert sorted(rejected(raw)) == [
        ("ratings.csv", 3, "malformed"),
        ("ratings.csv", 6, "timestamp_not_a_number"),
        ("ratings.csv", 7, "timestamp_not_seconds"),
        ("ratings.csv", 9, "malformed"),
    ]
    assert raw.n_lines == 8 + 3
    monkeypatch.setattr("recmerge.data.sources.files._BLOCK", 20)
    monkeypatch.setattr("recmerge.data.sources.movielens._READ", 7)
    in_small_blocks = read(path)
    assert in_small_blocks.interactions.rows() == raw.interactions.rows()
    assert sorted(rejected(in_small_blocks)) == sorted(rejected(raw))


def test_a_csv_without_its_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ratings\.csv begins with '1,11,4\.5,1112486027', expected 'userId,movieId,rating,timestamp'"):
        read(archive(tmp_path / "ml-20m.zip", csv_members("1,11,4.5,1112486027\n", MOVIES)))
    with pytest.raises(DataError, match=r"movies\.csv in .* has no column title; it has: movieId, name"):
        read(archive(tmp_path / "ml-20m.zip", csv_members("userId,movieId,rating,timestamp\n1,1,1,1112486027\n", "movieId,name\n1,A\n")))


def test_a_damaged_or_wrong_archive(tmp_path: Path) -> None:
    path = tmp_path / "ml-1m.zip"
    with pytest.raises(ArtifactError, match="does not exist"):
        read(path)
    path.write_bytes(b"PK not really")
    with pytest.raises(DataError, match="no whole zip"):
        read(path)
    with pytest.raises(DataError, match=r"holds no ratings\.dat or ratings\.csv or u\.data"):
        read(archive(path, {"a.txt": "x"}))
    with pytest.raises(DataError, match=r"holds no movies\.dat"):
        read(archive(path, {"ratings.dat": "1::1::1::1\n"}))
    with pytest.raises(DataError, match="holds no ratings"):
        read(archive(path, {"ratings.dat": "", "movies.dat": "1::A::B\n"}))
    with pytest.raises(DataError, match=r"movies\.dat holds no movies"):
        read(archive(path, {"ratings.dat": "1::1::1::1\n", "movies.dat": "\n"}))


def test_a_member_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    lines = "".join(f"{u}::{u * 7 % 100}::5::{978300000 + u * u}\n" for u in range(3000))
    path = archive(tmp_path / "ml-1m.zip", {"ratings.dat": lines, "movies.dat": "1::A::B\n"})
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="no whole zip"):
        read(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = archive(tmp_path / "ml-1m.zip", {"ratings.dat": b"\n" * (65 << 20), "movies.dat": "1::A::B\n"})
    with pytest.raises(DataError, match=r"ratings\.dat in .* has 68,157,440 bytes, packed into [\d,]+; at most 1,073,741,824 are read, and 200 times"):
        read(path)


@pytest.mark.parametrize("name", ["../ratings.dat", "ml-1m/../../ratings.dat", "/etc/ratings.dat", "C:\\ratings.dat", "..\\ratings.dat"])
def test_a_member_outside_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "ml-1m.zip", {"movies.dat": "1::A::B\n", name: "1::1::1::1\n"})
    with pytest.raises(DataError, match="that lies outside the archive"):
        read(path)
    assert [p.name for p in tmp_path.iterdir()] == ["ml-1m.zip"]


@pytest.mark.parametrize("kind", [0o120777, 0o020666, 0o010666])  # a link, a device, a pipe
def test_a_member_that_is_no_plain_file_is_refused(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        member = zipfile.ZipInfo("ml-1m/ratings.dat")
        member.create_system, member.external_attr = 3, kind << 16
        zipped.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="that is a link or a device"):
        read(path)
