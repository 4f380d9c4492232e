"""Column, file and folder names, each spelled once."""

from pathlib import Path

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
TITLE = "title"
BRAND = "brand"
CATEGORY = "category"
POSITION = "position"  # 0-based place of an event in its user's sequence
SPLIT = "split"  # train, valid, test or unasked
DOMAIN = "domain"
TARGET = "target"
CANDIDATES = "candidates"
SCORE = "score"
RANK = "rank"
IS_TARGET = "is_target"
N_CANDIDATES, N_BETTER, N_TIED = "n_candidates", "n_better", "n_tied"

TRAIN, VALID, TEST = "train", "valid", "test"
UNASKED = "unasked"  # after a cut of a time split, and nobody's target: neither trained on nor asked about

MANIFEST = "manifest.json"  # written last: its presence means complete
FAILURE = "failure.json"
STARTED = "run.json"  # written first: what the run set out to do
LOCK = ".lock"

ITEMS_FILE = "items.parquet"
EVENTS_FILE = "events.parquet"
USERS_FILE = "users.parquet"
ROWS_FILE = "rows.parquet"
CANDIDATES_FILE = "candidates.parquet"
RANKINGS_FILE = "rankings.parquet"
TARGETS_FILE = "targets.parquet"  # where each target stands in a whole catalogue
FUSED_FILE = "fused.parquet"
GENERATIONS_FILE = "generations.parquet"
METRICS_FILE = "metrics.json"
PER_USER_FILE = "per_user.parquet"
REPORT_FILE = "report.html"
MERGE_REPORT_FILE = "merge_report.json"
MERGE_PAGE_FILE = "merge_report.html"
LOSS_FILE = "loss.jsonl"
VALID_LOSS_FILE = "valid_loss.jsonl"
ADAPTER_DIR = "adapter"
MODEL_DIR = "model"
ADAPTER_CARD = "recmerge.json"  # what recmerge knows of an adapter or base, beside its weights

# Where each stage's runs live below the workspace.
STAGE_DIRS = {
    "build": "data/processed",
    "mix": "data/mixed",
    "base": "runs/base",
    "train": "runs/train",
    "merge": "runs/merge",
    "infer": "runs/infer",
    "eval": "runs/eval",
    "ablate": "runs/ablate",
}

PACKAGE_PREFIX = "package:"  # of a path inside the installed package, e.g. the bundled sample


def expand_path(text: str) -> Path:
    """Turn a path as configs and manifests write it into a real one; `package:` means inside the installed package."""
    if text.startswith(PACKAGE_PREFIX):
        return Path(__file__).parent / "assets" / text.removeprefix(PACKAGE_PREFIX)
    return Path(text).expanduser()
