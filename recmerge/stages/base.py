"""`base pretrain`: a small language model and its tokenizer, from catalogue text."""

import hashlib
import json
from typing import Any

from recmerge.config.base import BaseConfig
from recmerge.errors import DataError
from recmerge.names import ADAPTER_CARD, BRAND, CATEGORY, LOSS_FILE, MODEL_DIR, TITLE, expand_path
from recmerge.runs.directory import Run, write_text
from recmerge.runs.manifest import RunSpec, code_version, input_from_file
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan

_COLUMNS = {"item_id": "item_id", "title": "title", "brand": "brand", "category": "category"}


def plan_base(config: BaseConfig, workspace: Workspace, name: str) -> Plan:
    """Plan a pretraining.

    Args:
        config: Its settings.
        workspace: Where runs live.
        name: The base's name.

    Returns:
        The plan.
    """
    check_name(name, "base name")
    inputs = tuple(input_from_file(f"catalogue:{d}", expand_path(p), workspace.relative(expand_path(p))) for d, p in sorted(config.catalogues.items()))
    resolved = config.resolved()
    resolved["catalogues"] = sorted(config.catalogues)  # where the files lie does not matter: their content is in the inputs
    code = code_version("lm/pretrain.py", "lm/encoding.py", "data/titles.py", "data/sources", "stages/base.py")
    spec = RunSpec("base", name, resolved, inputs, code, {"seed": config.seed})
    return Plan(spec, (f"{MODEL_DIR}/model.safetensors", f"{MODEL_DIR}/tokenizer.json", f"{MODEL_DIR}/config.json", LOSS_FILE))


def run_base(config: BaseConfig, run: Run) -> None:
    """Read the catalogues, learn a tokenizer and a model, and save both below `model/`.

    Args:
        config: Its settings.
        run: Where to write.
    """
    import torch

    from recmerge.lm.pretrain import new_model, pretrain, save_base, train_tokenizer

    items = _read_catalogues(config)
    held_out = [i for i in items if _held_out(i.title, config)]
    learned = [i for i in items if not _held_out(i.title, config)]
    texts = [t for i in learned for t in (i.title, i.brand, i.category) if t]
    tokenizer = train_tokenizer(texts, config.vocab_size, max(config.max_length, 2048))
    shape = ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "max_length", "seed")
    model = new_model(tokenizer, **{key: getattr(config, key) for key in shape})
    run.reporter.say(f"{len(learned)} titles, {sum(p.numel() for p in model.parameters()):,} parameters, {len(tokenizer)} tokens")
    result = pretrain(model, tokenizer, learned, held_out, config.resolved(), run.reporter)
    folder = run.path / MODEL_DIR
    save_base(model, tokenizer, folder, getattr(torch, config.dtype))
    card = {"schema": 1, "kind": "base", "prompt": {"style": "open", "max_length": config.max_length}, "domains": sorted(config.catalogues)}
    write_text(folder / ADAPTER_CARD, json.dumps(card, indent=2) + "\n")
    facts: dict[str, Any] = {
        "kind": "base",
        "domains": sorted(config.catalogues),
        "titles": len(learned),
        "held_out_titles": len(held_out),
        "held_out_loss": result.loss,
        "tokens_seen": result.tokens_seen,
        "parameters": result.parameters,
    }
    write_text(folder / "README.md", _model_card(run.spec.name, facts, config))
    write_text(run.path / LOSS_FILE, "".join(json.dumps({"step": s, "loss": loss}) + "\n" for s, loss in result.curve))
    run.facts.update(facts)
    run.reporter.say(f"loss on {len(held_out)} unseen titles: {result.loss:.3f} nats per token")


def _read_catalogues(config: BaseConfig) -> list[Any]:
    from recmerge.data.sources.table import read_catalogue
    from recmerge.data.titles import clean_titles
    from recmerge.lm.pretrain import CatalogueItem

    found: dict[tuple[str, str], CatalogueItem] = {}
    for domain, path in sorted(config.catalogues.items()):
        frame = read_catalogue(expand_path(path), _COLUMNS)
        columns = {c: clean_titles(frame[c].to_list(), config.max_title_chars).titles for c in (TITLE, BRAND, CATEGORY)}
        for title, brand, category in zip(columns[TITLE], columns[BRAND], columns[CATEGORY], strict=True):
            if title:
                found.setdefault((domain, title), CatalogueItem(domain, title, brand or "", category or ""))
    if not found:
        raise DataError("the catalogues hold no title at all", fix="check columns item_id and title of the tables")
    return [found[key] for key in sorted(found)]


def _held_out(title: str, config: BaseConfig) -> bool:
    digest = hashlib.sha256(f"{config.seed}:{title}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 < config.valid_share


def _model_card(name: str, facts: dict[str, Any], config: BaseConfig) -> str:
    lines = [
        "---",
        "library_name: transformers",
        "tags: [qwen2, recommendation, recmerge]",
        "---",
        f"# {name}",
        "",
        f"A causal language model of {facts['parameters']:,} parameters (Qwen2 architecture, tied embeddings), made by `recmerge base pretrain`.",
        "",
        f"- Text: {facts['titles']:,} titles of {', '.join(facts['domains'])}, side by side with others of the same category or brand.",
        "  Nothing of anybody's behaviour was read, so nothing of a test set can be in it.",
        f"- Training: {config.steps} steps of {config.batch_size} sequences, {facts['tokens_seen']:,} tokens, seed {config.seed}.",
        f"- Loss on {facts['held_out_titles']:,} unseen titles: {facts['held_out_loss']:.3f} nats per token.",
        "- Layout: start, title, end, title, end ...: the `open` prompts of recmerge.",
        "",
    ]
    return "\n".join(lines)
