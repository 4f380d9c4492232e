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
_MCAULEY = "https://mcauleylab.ucsd.edu/public_datasets/data"
_AMAZON_2018 = {
    "all-beauty": "All_Beauty",
    "appliances": "Appliances",
    "automotive": "Automotive",
    "books": "Books",
    "cds": "CDs_and_Vinyl",
    "clothing": "Clothing_Shoes_and_Jewelry",
    "crafts": "Arts_Crafts_and_Sewing",
    "electronics": "Electronics",
    "fashion": "AMAZON_FASHION",
    "food": "Grocery_and_Gourmet_Food",
    "garden": "Patio_Lawn_and_Garden",
    "giftcards": "Gift_Cards",
    "home": "Home_and_Kitchen",
    "industrial": "Industrial_and_Scientific",
    "instruments": "Musical_Instruments",
    "kindle": "Kindle_Store",
    "luxury-beauty": "Luxury_Beauty",
    "magazines": "Magazine_Subscriptions",
    "movies": "Movies_and_TV",
    "music": "Digital_Music",
    "office": "Office_Products",
    "pantry": "Prime_Pantry",
    "pets": "Pet_Supplies",
    "phones": "Cell_Phones_and_Accessories",
    "software": "Software",
    "sports": "Sports_and_Outdoors",
    "tools": "Tools_and_Home_Improvement",
    "toys": "Toys_and_Games",
    "videogames": "Video_Games",
}
_AMAZON_2023 = {
    **{domain: category for domain, category in _AMAZON_2018.items() if domain not in {"luxury-beauty", "pantry"}},
    "baby": "Baby_Products",
    "beauty": "Beauty_and_Personal_Care",
    "boxes": "Subscription_Boxes",
    "care": "Health_and_Personal_Care",
    "fashion": "Amazon_Fashion",
    "handmade": "Handmade_Products",
    "health": "Health_and_Household",
    "unknown": "Unknown",
}
_NO_5_CORE = {"appliances", "boxes", "care", "fashion", "handmade", "music"}  # of 2023: nothing is left of them
_FULL = "-full"  # behind a domain's name: all reviews instead of the 5-core
_MOVIELENS = {  # the md5 that GroupLens puts beside each file
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
    "ml-32m": "d472be332d4daa821edc399621853b57",
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


def _amazon(reviews: str, meta: str) -> tuple[RemoteFile, ...]:
    return RemoteFile("reviews", f"{_MCAULEY}/{reviews}"), RemoteFile("meta", f"{_MCAULEY}/{meta}")


def _amazon_2018() -> dict[str, tuple[RemoteFile, ...]]:
    domains = {}
    for domain, category in _AMAZON_2018.items():
        meta = f"amazon_v2/metaFiles2/meta_{category}.json.gz"
        domains[domain] = _amazon(f"amazon_v2/categoryFilesSmall/{category}_5.json.gz", meta)
        domains[domain + _FULL] = _amazon(f"amazon_v2/categoryFiles/{category}.json.gz", meta)
    return domains


def _amazon_2023() -> dict[str, tuple[RemoteFile, ...]]:
    domains = {}
    for domain, category in _AMAZON_2023.items():
        meta = f"amazon_2023/raw/meta_categories/meta_{category}.jsonl.gz"
        if domain not in _NO_5_CORE:
            domains[domain] = _amazon(f"amazon_2023/benchmark/5core/rating_only/{category}.csv.gz", meta)
        domains[domain + _FULL] = _amazon(f"amazon_2023/raw/review_categories/{category}.jsonl.gz", meta)
    return domains


OFFICIAL: dict[str, Official] = {
    "amazon2014": Official(
        licence="Amazon product data 2014 (J. McAuley, UC San Diego): for research; cite He and McAuley (2016) and McAuley et al. (2015)",
        domains={
            domain: (RemoteFile("reviews", f"{_AMAZON}/reviews_{category}_5.json.gz"), RemoteFile("meta", f"{_AMAZON}/meta_{category}.json.gz"))
            for domain, category in _AMAZON_CATEGORIES.items()
        },
        default=("beauty", "clothing", "food", "sports", "toys"),
    ),
    "amazon2018": Official(
        licence="Amazon review data 2018 (J. Ni, UC San Diego): its makers state no licence and give it for research; cite Ni, Li and McAuley (2019)",
        domains=_amazon_2018(),
        default=("crafts", "industrial", "instruments", "office", "pantry"),
    ),
    "amazon2023": Official(
        licence="Amazon Reviews 2023 (McAuley Lab, UC San Diego): its makers assign no licence and give it for research; cite Hou et al. (2024)",
        domains=_amazon_2023(),
        default=("industrial", "instruments", "videogames"),
    ),
    "movielens": Official(
        licence="MovieLens (GroupLens, University of Minnesota): for research, no commercial use, passed on only as the README in each zip allows "
        "(100K, 1M and 10M: not at all); cite Harper and Konstan (2015)",
        domains={name: (RemoteFile("archive", f"https://files.grouplens.org/datasets/movielens/{name}.zip", md5),) for name, md5 in _MOVIELENS.items()},
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
