"""Describe a data set in numbers and in a page of charts."""

from pathlib import Path
from typing import Any

from recmerge.data.statistics import CountTokens, curves, describe_set
from recmerge.errors import ConflictError
from recmerge.evaluation.report.data_set import stats_page
from recmerge.runs.directory import write_text
from recmerge.runs.workspace import Workspace
from recmerge.stages.check import load_set

_STATS_DIR = "data/stats"


def run_stats(ref: str, workspace: Workspace, out: Path | None = None, *, base: str | None = None, force: bool = False) -> dict[str, Any]:
    """Describe one data set, and draw its lengths, popularity, titles and ties.

    Args:
        ref: Its name, name@version or path.
        workspace: Where to look.
        out: The page's file; None: data/stats/<name>-<version>.html in the workspace, which is always the same for one version.
        base: The model whose tokenizer counts the tokens of titles; None: they are left out.
        force: Replace a file that `out` names.

    Returns:
        Where it lies, the page, and its statistics, see `describe_set`.

    Raises:
        ArtifactError: There is no such set, or it cannot be read, or no such model.
        ConflictError: `out` is a file already, or a folder.
    """
    if out is not None and (out.is_dir() or (out.exists() and not force)):
        raise ConflictError(f"{out} is there already", fix="give another --out FILE, or --force to replace a file")
    found, training_set = load_set(ref, workspace)
    manifest = found.manifest
    count_tokens = None if base is None else _counter(base, workspace)
    described = {**describe_set(training_set, count_tokens), "tokenizer": base}
    drawn = {name: curves(domain, count_tokens) for name, domain in sorted(training_set.domains.items())}
    page = out or workspace.root / _STATS_DIR / f"{manifest.name}-{manifest.version}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, stats_page(described, drawn, found.label))
    outputs = [{"path": str(page.resolve()), "bytes": page.stat().st_size}]
    return {"run_dir": str(found.path.resolve()), "version": manifest.version, "outputs": outputs, **described, "build": manifest.facts}


def _counter(base: str, workspace: Workspace) -> CountTokens:
    from recmerge.lm.base import load_tokenizer
    from recmerge.stages.lm_refs import find_base

    tokenizer = load_tokenizer(find_base(workspace, base))
    return lambda texts: [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
