"""Our metrics beside those of ir-measures and torchmetrics, on rankings without ties, where all agree what they mean."""

import ir_measures
import numpy as np
import pytest
import torch
from ir_measures import AP, RR, Success, nDCG
from torchmetrics.retrieval import RetrievalAUROC, RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from recmerge.evaluation.metrics import per_user

N_USERS, N_CANDIDATES = 200, 30
KS = (1, 3, 5)


@pytest.fixture(scope="module")
def scores() -> np.ndarray:
    """(200, 30) distinct scores in (0, 1), the target first; torchmetrics takes 0 for not retrieved and squashes what is beyond 1."""
    return np.random.default_rng(0).permuted(np.tile(np.arange(1, N_CANDIDATES + 1) / 31, (N_USERS, 1)), axis=1)


@pytest.fixture(scope="module")
def ours(scores: np.ndarray) -> dict[str, np.ndarray]:
    better = (scores[:, 1:] > scores[:, :1]).sum(axis=1)
    return per_user(better, np.zeros(N_USERS), KS, np.full(N_USERS, N_CANDIDATES))


def test_ir_measures(scores: np.ndarray, ours: dict[str, np.ndarray]) -> None:
    asked = {f"q{u:03d}": {"d00": 1} for u in range(N_USERS)}
    run = {f"q{u:03d}": {f"d{c:02d}": float(s) for c, s in enumerate(row)} for u, row in enumerate(scores)}
    pairs = {**{f"ndcg@{k}": nDCG @ k for k in KS}, **{f"mrr@{k}": RR @ k for k in KS[1:]}, **{f"hr@{k}": Success @ k for k in KS[1:]}, "mrr": RR}
    theirs = {(str(m.measure), m.query_id): m.value for m in ir_measures.iter_calc([*pairs.values(), AP], asked, run)}
    for name, measure in pairs.items():
        assert ours[name].tolist() == pytest.approx([theirs[str(measure), f"q{u:03d}"] for u in range(N_USERS)]), name
    assert ours["mrr"].tolist() == pytest.approx([theirs[str(AP), f"q{u:03d}"] for u in range(N_USERS)])  # one relevant item: the same


def test_torchmetrics(scores: np.ndarray, ours: dict[str, np.ndarray]) -> None:
    preds = torch.tensor(scores).flatten()
    target = torch.zeros(N_USERS, N_CANDIDATES, dtype=torch.bool)
    target[:, 0] = True
    indexes = torch.arange(N_USERS).repeat_interleave(N_CANDIDATES)
    kinds = {"ndcg": RetrievalNormalizedDCG, "mrr": RetrievalMRR, "hr": RetrievalHitRate}
    metrics = {f"{kind}@{k}": of(top_k=k) for kind, of in kinds.items() for k in KS if f"{kind}@{k}" in ours}
    for name, metric in (metrics | {"mrr": RetrievalMRR(), "auc": RetrievalAUROC()}).items():
        assert ours[name].mean() == pytest.approx(float(metric(preds, target.flatten(), indexes=indexes)), rel=1e-5), name
