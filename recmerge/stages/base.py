"""`base pretrain`: a small language model and its tokenizer, from catalogue text and other domains' behaviour."""

import json
import random
from dataclasses import asdict
from typing import Any

from recmerge.config.base import BaseConfig
from recmerge.lm.shelves import CatalogueItem, Histories, Shelves
from recmerge.names import ADAPTER_CARD, LOSS_FILE, MODEL_DIR, expand_path
from recmerge.runs.directory import Run, write_text
from recmerge.runs.manifest import RunSpec, code_version, input_from_file
from recmerge.runs.resolve import resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.base_card import ASKED, base_model_card
from recmerge.stages.base_corpus import BEHAVIOUR, Corpus, behaviour_of, read_corpus
from recmerge.stages.execute import Plan

_CODE = (
    *("lm/cores.py", "lm/encoding.py", "lm/fused_loss.py", "lm/knowledge.py", "lm/muon.py", "lm/new_base.py", "lm/pretrain.py", "lm/shelves.py"),
    *("data/titles.py", "data/sources", "data/dataset.py", "stages/base.py", "stages/base_corpus.py"),
)


def plan_base(config: BaseConfig, workspace: Workspace, name: str) -> Plan:
    """Plan a pretraining.

    Args:
        config: Its settings.
        workspace: Where runs live.
        name: The base's name.

    Returns:
        The plan.

    Raises:
        ArtifactError: A domain of `behaviour` is not built.
    """
    check_name(name, "base name")
    inputs = [input_from_file(f"catalogue:{d}", expand_path(p), workspace.relative(expand_path(p))) for d, p in sorted(config.catalogues.items())]
    for ref in sorted(config.behaviour):
        found = resolve(workspace, ref, ["build"], kind="domain", hint=f"recmerge data build {ref} --config CONFIG")
        inputs.append(found.as_input(f"{BEHAVIOUR}:{found.manifest.facts['domains'][0]}", workspace))
    resolved = config.resolved()
    resolved["catalogues"] = sorted(config.catalogues)  # where the files lie does not matter: their content is in the inputs
    spec = RunSpec("base", name, resolved, tuple(inputs), code_version(*_CODE), {"seed": config.seed}, ("data_note",))
    return Plan(spec, (f"{MODEL_DIR}/model.safetensors", f"{MODEL_DIR}/tokenizer.json", f"{MODEL_DIR}/config.json", LOSS_FILE))


def run_base(config: BaseConfig, run: Run) -> None:
    """Read the catalogues, learn a tokenizer and a model, and save both below `model/`.

    Args:
        config: Its settings.
        run: Where to write.
    """
    import torch

    from recmerge.lm.encoding import Encoder, PromptSettings
    from recmerge.lm.new_base import new_model, save_base, train_tokenizer
    from recmerge.lm.pretrain import pretrain

    corpus = read_corpus(config, run)
    texts = [t for i in corpus.items for t in (i.title, i.brand, i.category) if t]
    tokenizer = train_tokenizer(texts, config.vocab_size, max(config.max_length, 2048))
    prompt = PromptSettings("open", config.max_length, max_title_tokens=config.max_title_tokens)
    encoder = Encoder(tokenizer, prompt)
    encoder.learn([i.title for i in corpus.items + corpus.held_out])
    shape = ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "max_length", "seed")
    model = new_model(tokenizer, **{key: getattr(config, key) for key in shape})
    size = sum(p.numel() for p in model.parameters())
    run.reporter.say(f"{len(corpus.items):,} titles, {len(corpus.histories):,} histories; {size:,} parameters, {len(tokenizer)} tokens")
    result = pretrain(model, _reading(corpus, encoder, config), config.resolved(), run.reporter)
    facts: dict[str, Any] = {
        "kind": "base",
        "domains": sorted({i.domain for i in corpus.items}),
        "behaviour": behaviour_of(run),
        "histories": len(corpus.histories),
        "tokens_seen": result.tokens_seen,
        "parameters": result.parameters,
        "learned": _knowledge(model, encoder, corpus.items),
        "unseen": _knowledge(model, encoder, corpus.held_out),
    }
    folder = run.path / MODEL_DIR
    save_base(model, tokenizer, folder, getattr(torch, config.dtype))
    card = {"schema": 1, "kind": "base", "prompt": asdict(prompt), "domains": facts["domains"], "behaviour": facts["behaviour"]}
    write_text(folder / ADAPTER_CARD, json.dumps(card, indent=2) + "\n")
    write_text(folder / "README.md", base_model_card(run.spec.name, facts, config))
    write_text(run.path / LOSS_FILE, "".join(json.dumps({"step": s, "loss": loss}) + "\n" for s, loss in result.curve))
    run.facts.update(facts)
    run.reporter.say("; ".join(f"{k} titles: {facts[k]['loss']:.3f} nats per token, {facts[k]['completed']:.1%} completed" for k in ("learned", "unseen")))


def _reading(corpus: Corpus, encoder: Any, config: BaseConfig) -> Any:
    from recmerge.lm.pretrain import Reading

    behaviour_share = config.behaviour_share if corpus.histories else 0.0
    sources: list[Any] = [(Shelves(corpus.items, config.shelf_share), 1 - behaviour_share)]
    if corpus.histories:
        sources.append((Histories(corpus.histories, config.max_history), behaviour_share))
    titles = [encoder.title(i.title) for i in corpus.items]
    return Reading(titles, sources, encoder.start_ids, encoder.end_id, config.max_length)


def _knowledge(model: Any, encoder: Any, items: list[CatalogueItem]) -> dict[str, Any]:
    from recmerge.lm.knowledge import measure_knowledge

    titles = sorted({encoder.title(i.title) for i in items})
    if len(titles) > ASKED:
        titles = sorted(random.Random(0).sample(titles, ASKED))  # noqa: S311  (no secret)
    return asdict(measure_knowledge(model, titles, encoder.start_ids, encoder.end_id))
