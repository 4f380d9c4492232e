"""Two floors computed again on real data by other means: scikit-learn's vectors, and the whole matrix of cosines."""

from pathlib import Path

import numpy as np
import pytest

from recmerge.cli.main import main
from recmerge.data.dataset import Domain, Example, examples, read_domain, training_events
from recmerge.rankers.itemknn import ItemKnnRanker
from recmerge.rankers.tfidf import TfidfRanker


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Domain:
    root, tables = tmp_path_factory.mktemp("recomputed"), shared / "data" / "amazon2014" / "toys"
    paths = [f"{kind}={tables / f'{kind}.csv.gz'}" for kind in ("interactions", "items")]
    words = ["data", "build", "toys", "--config", "table", "--workspace", str(root), "--quiet"]
    assert main([*words, "--set", paths[0], "--set", paths[1]]) == 0
    return read_domain(root / "data" / "processed" / "toys" / "v001")


def asked(domain: Domain) -> list[Example]:
    return examples(domain, "test", 300)


@pytest.mark.slow
def test_tfidf_is_that_of_scikit_learn(toys: Domain) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    vectors = text.TfidfVectorizer(token_pattern=r"(?u)\w+", binary=True).fit_transform(toys.items["title"])
    row = {item: i for i, item in enumerate(toys.items["item_id"])}
    ranker = TfidfRanker()
    ranker.fit(toys)
    scores = ranker.score(asked(toys))
    for example, found in zip(asked(toys), scores, strict=True):
        weights = [0.9**age for age in range(len(example.history))][::-1]
        profile = np.asarray(weights @ vectors[[row[i] for i in example.history]].toarray())
        expected = vectors[[row[i] for i in example.candidates]].toarray() @ profile / np.linalg.norm(profile)
        assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_itemknn_is_that_of_the_whole_matrix(toys: Domain) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    events = training_events(toys).select("user_id", "item_id").unique()
    items, users = toys.items["item_id"].to_list(), sorted(set(events["user_id"]))
    row, column = {u: i for i, u in enumerate(users)}, {item: i for i, item in enumerate(items)}
    at = ([row[u] for u in events["user_id"]], [column[i] for i in events["item_id"]])
    bought = sparse.csc_matrix((np.ones(len(events)), at), shape=(len(users), len(items)))
    together, n_buyers = (bought.T @ bought).tocsc(), np.asarray(bought.sum(axis=0)).ravel()
    ranker = ItemKnnRanker()
    ranker.fit(toys)
    settings = ranker.settings
    for example, found in zip(asked(toys), ranker.score(asked(toys)), strict=True):
        weights = np.zeros(len(items))
        for age, item in enumerate(item for item in reversed(example.history) if n_buyers[column[item]]):
            weights[column[item]] = max(weights[column[item]], settings.decay**age)
        for item, score in zip(example.candidates, found, strict=True):
            cosines = together[:, [column[item]]].toarray().ravel() / (np.sqrt(n_buyers * n_buyers[column[item]]) + settings.shrinkage + 1e-300)
            cosines[column[item]] = 0
            cosines[np.argsort(-cosines, kind="stable")[settings.k :]] = 0
            assert score == pytest.approx(weights @ cosines, abs=1e-12)
