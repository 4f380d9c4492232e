"""Where the official raw files are, what they are called, and what may be done with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recmerge.errors import UsageError, unknown_name

RAW_DIR = Path("data", "raw")
_AMAZON = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"
_AMAZON_CATEGORIES = {
    "android": "Apps_for_Android",
    "automotive": "Automotive",
    "baby": "Baby",
    "beauty": "Beauty",
    "books": "Books",
    "cds": "CDs_and_Vinyl",
    "clothing": "Clothing_Shoes_and_Jewelry",
    "electronics": "Electronics",
    "food": "Grocery_and_Gourmet_Food",
    "garden": "Patio_Lawn_and_Garden",
    "health": "Health_and_Personal_Care",
    "home": "Home_and_Kitchen",
    "instruments": "Musical_Instruments",
    "kindle": "Kindle_Store",
    "movies": "Movies_and_TV",
    "music": "Digital_Music",
    "office": "Office_Products",
    "pets": "Pet_Supplies",
    "phones": "Cell_Phones_and_Accessories",
    "sports": "Sports_and_Outdoors",
    "tools": "Tools_and_Home_Improvement",
    "toys": "Toys_and_Games",
    "video": "Amazon_Instant_Video",
    "videogames": "Video_Games",
}


@dataclass(frozen=True)
class RemoteFile:
    """One official file.

    Args:
        role: What it is to its source's reader, e.g. "reviews".
        url: Where it is.
        md5: Its published checksum; empty where none is published.
    """

    role: str
    url: str
    md5: str = ""

    @property
    def name(self) -> str:
        """Its name on disk, the official one."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Official:
    """An official source.

    Args:
        licence: One line on what its makers ask of its users.
        domains: The files of each domain.
        default: Domains fetched where none is named.
    """

    licence: str
    domains: Mapping[str, tuple[RemoteFile, ...]]
    default: tuple[str, ...]


OFFICIAL: dict[str, Official] = {
    "amazon2014": Official(
        licence="Amazon product data 2014 (J. McAuley, UC San Diego): for research; cite He and McAuley (2016) and McAuley et al. (2015)",
        domains={
            domain: (RemoteFile("reviews", f"{_AMAZON}/reviews_{category}_5.json.gz"), RemoteFile("meta", f"{_AMAZON}/meta_{category}.json.gz"))
            for domain, category in _AMAZON_CATEGORIES.items()
        },
        default=("beauty", "clothing", "food", "sports", "toys"),
    ),
    "movielens": Official(
        licence="MovieLens 1M (GroupLens, University of Minnesota): for research, no redistribution, no commercial use; cite Harper and Konstan (2015)",
        domains={"ml-1m": (RemoteFile("archive", "https://files.grouplens.org/datasets/movielens/ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906"),)},
        default=("ml-1m",),
    ),
}


def official(source: str) -> Official:
    """Return an official source by name.

    Args:
        source: A name of `OFFICIAL`.

    Returns:
        The source.

    Raises:
        UsageError: There is none of that name.
    """
    if source not in OFFICIAL:
        raise UsageError(
            unknown_name("source", source, OFFICIAL), fix="name one of these; your own files need no fetching: `recmerge data build --config table`"
        )
    return OFFICIAL[source]


def official_files(source: str, domain: str) -> tuple[RemoteFile, ...]:
    """Return the files of one domain of an official source.

    Args:
        source: A name of `OFFICIAL`.
        domain: One of its domains.

    Returns:
        The domain's files.

    Raises:
        UsageError: The source or domain is unknown.
    """
    known = official(source).domains
    if domain not in known:
        raise UsageError(unknown_name(f"{source} domain", domain, known), fix="name one of these")
    return known[domain]


def raw_paths(source: str, domain: str, root: Path) -> dict[str, Path]:
    """Return where `data fetch` puts the files of a domain.

    Args:
        source: A source's name.
        domain: A domain's name.
        root: The workspace.

    Returns:
        Paths by role; nothing where the source is not official.

    Raises:
        UsageError: The source is official and has no such domain.
    """
    if source not in OFFICIAL:
        return {}
    return {file.role: root / RAW_DIR / source / file.name for file in official_files(source, domain)}
