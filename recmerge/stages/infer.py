"""`infer`: rank every test user's stored candidates with an adapter, a base alone, or another ranker."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recmerge.config.infer import InferConfig
from recmerge.data.dataset import Domain, Example, candidates_sha256, examples, read_domain
from recmerge.data.other_candidates import ALL, POPULAR, SIMILAR, STORED, in_other_order, popular_candidates, similar_candidates
from recmerge.data.prompts import PUBLISHED_WORDING, Wording
from recmerge.errors import ArtifactError, DataError, UsageError
from recmerge.names import GENERATIONS_FILE, IS_TARGET, ITEM_ID, RANK, RANKINGS_FILE, SCORE, TARGETS_FILE, USER_ID, VALID
from recmerge.rankers import CatalogueRanker, Ranker, load_ranker, new_ranker
from recmerge.rankers.tfidf import TfidfRanker
from recmerge.runs.directory import Run
from recmerge.runs.manifest import Input, RunSpec, code_version
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan
from recmerge.stages.infer_all import rank_catalogue, refuse_unable
from recmerge.stages.train_ranker import find_trained_ranker

_LLM_CODE = (
    *("lm/base.py", "lm/encoding.py", "lm/generation.py", "lm/lora.py", "lm/parsing.py", "lm/scoring.py", "lm/title_tree.py"),
    *("lm/token_logs.py", "lm/tree_attention.py"),
    *("rankers/llm.py", "rankers/normalization.py", "data/prompts.py", "data/dataset.py", "stages/infer.py"),
)
_RANKER_CODE = ("rankers/__init__.py", "rankers", "data/dataset.py", "stages/infer.py")
_OTHER_CODE = ("data/candidates.py", "data/draws.py", "data/other_candidates.py", "rankers/per_domain.py", "rankers/tfidf.py", "stages/infer_all.py")
_CHOOSING_USERS = 500
_USERS_OF_ALL = 8  # whom a language model ranks a whole catalogue for, between two words of progress
IGNORED = ("device", "batch_size", "adapter", "base", "revision")  # adapter and base enter by their content


def plan_infer(config: InferConfig, workspace: Workspace, domain: str, name: str | None) -> Plan:
    """Plan a ranking.

    Args:
        config: Its settings; `adapter` or `ranker` is given.
        workspace: Where runs live.
        domain: Whose users are ranked for.
        name: The run's name; None: domain, adapter and what is unusual about it.

    Returns:
        The plan.

    Raises:
        UsageError: Neither or both of adapter and ranker are given, or the whole catalogue is asked of what cannot rank it.
    """
    if (config.adapter is None) == (config.ranker is None):
        raise UsageError("give exactly one of --adapter and --ranker", fix=f"recmerge infer {domain} --adapter {domain}")
    if config.candidates == ALL:
        _refuse_whole(config)
    _refuse_normalizing(config)
    data = resolve(workspace, domain, ["build"], kind="domain", hint=f"recmerge data build {domain} --config CONFIG")
    inputs: list[Input] = [data.as_input("data", workspace)]
    resolved = config.resolved()
    more = () if config.candidates == STORED and config.order_seed is None else _OTHER_CODE
    if config.ranker is not None:
        label, code = config.ranker, code_version(*_RANKER_CODE, *more)
        new_ranker(config.ranker)  # refuses what cannot be used before anything is written
        trained = find_trained_ranker(workspace, config.ranker, data)
        inputs += [trained.as_input("ranker", workspace)] if trained else []
    else:
        label = _plan_adapter(config, workspace, data, inputs, resolved)
        if config.candidates == ALL and (style := resolved["prompt"]["style"]) != "open":
            what = f"--candidates all: the {style} prompt of adapter '{config.adapter}' names its candidates, so it cannot ask for a whole catalogue"
            raise UsageError(what, fix="choose an adapter that was trained with prompt.style=open, or --candidates stored, popular or similar")
        code = code_version(*_LLM_CODE, *more)
    generated = "-generate" if config.mode == "generate" else ""
    valid = "-valid" if config.split == VALID else ""
    other = ("" if config.candidates == STORED else f"-{config.candidates}") + ("" if config.order_seed is None else f"-order{config.order_seed}")
    other += "" if config.normalize == "sum" else f"-{config.normalize}"
    name = check_name(name or f"{data.manifest.name}-{label}{generated}{valid}"[: 100 - len(other)] + other)
    spec = RunSpec("infer", name, resolved, tuple(inputs), code, {"seed": config.seed}, IGNORED)
    outputs = (*((GENERATIONS_FILE,) if config.mode == "generate" else ()), *((TARGETS_FILE,) if config.candidates == ALL else ()))
    return Plan(spec, (RANKINGS_FILE, *outputs))


def _refuse_whole(config: InferConfig) -> None:
    if config.order_seed is not None:
        raise UsageError(f"order_seed={config.order_seed} puts lists in another order, and --candidates all has no lists", fix="leave one of the two out")
    if config.mode == "generate":
        raise UsageError("--candidates all ranks by likelihood, and mode=generate writes answers", fix="leave one of the two out")
    if config.ranker is not None:
        refuse_unable(new_ranker(config.ranker), f"ranker '{config.ranker}'")


def _refuse_normalizing(config: InferConfig) -> None:
    if config.normalize == "sum":
        return
    if config.ranker is not None or config.mode == "generate":
        what = f"ranker '{config.ranker}' has" if config.ranker else "written answers have"
        raise UsageError(f"normalize={config.normalize} is for likelihoods of a language model, {what} none", fix="leave it out")
    if config.normalize == "auto" and config.split == VALID:
        raise UsageError("normalize=auto is chosen on validation users, so it cannot rank them", fix="give sum, mean or pmi")


def _plan_adapter(config: InferConfig, workspace: Workspace, data: Found, inputs: list[Input], resolved: dict[str, Any]) -> str:
    """Add the base and the adapter to the inputs and the prompt to the settings; return what to call them."""
    from dataclasses import asdict

    from recmerge.lm.base import fingerprint
    from recmerge.stages.lm_refs import base_input, find_adapter, prompt_settings
    from recmerge.stages.refusals import refuse_later_training, refuse_read_buyers

    assert config.adapter is not None
    found = find_adapter(workspace, config.adapter, config.base, config.trust_remote_code)
    refuse_read_buyers(workspace, found.base.folder, data)
    refuse_later_training(found.card, data)
    print_now, print_then = fingerprint(found.base), (found.card.get("base") or {}).get("fingerprint")
    if print_then not in (None, print_now) and not found.folded:
        raise ArtifactError(
            f"adapter '{config.adapter}' was trained on another base (fingerprint {print_then[:12]}) than '{found.base.ref}' ({print_now[:12]})",
            fix="give the base that it was trained on with --base",
        )
    inputs.append(base_input(workspace, found.base, print_now))
    if found.input is not None:
        inputs.append(found.input)
    if config.prompt is None:
        resolved["prompt"] = asdict(prompt_settings(found.card, found.base))
    if "wording" in data.manifest.facts and not found.card.get("prompt"):  # an adapter that recmerge trained was taught in recmerge's words
        resolved["wording"] = data.manifest.facts["wording"]
    return found.label


def run_infer(config: InferConfig, run: Run) -> None:
    """Rank and write `rankings.parquet`: user_id, item_id, score, rank, is_target; of a whole catalogue also `targets.parquet`.

    Args:
        config: Its settings.
        run: Where to write.

    Raises:
        DataError: The split asks nobody, or other candidates than the stored ones cannot be drawn.
    """
    domain = read_domain(run.input_path("data"))
    asked = examples(domain, config.split, config.users, config.seed)
    if not asked:
        raise DataError(f"nobody is asked in the {config.split} split of '{domain.name}'", fix="rank the other split, --split test or valid")
    asked = _other_lists(config, domain, asked)
    run.facts.update(
        kind="rankings",
        domains=[domain.name],
        mode=config.mode,
        split=config.split,
        n_users=len(asked),
        candidates={"n": max((len(e.candidates) for e in asked), default=0), "sha256": candidates_sha256(asked), "kind": config.candidates},
        malformed=0,
        off_list=0,
    )
    if config.ranker is not None:
        run.facts["label"] = config.ranker
        ranker = _fitted(config.ranker, domain, config, run)
        if config.candidates == ALL:
            assert isinstance(ranker, CatalogueRanker)  # the plan refuses others
            rank_catalogue(ranker, domain, config.split, asked, run)
        else:
            _write_scores(run.path, asked, ranker.score(asked))
    else:
        _infer_llm(config, run, domain, asked)


def _other_lists(config: InferConfig, domain: Domain, asked: list[Example]) -> list[Example]:
    """Put the candidates that the settings ask for in the place of the stored ones."""
    if config.candidates == POPULAR:
        asked = popular_candidates(domain, config.split, asked)
    elif config.candidates == SIMILAR:
        titles = TfidfRanker()
        titles.fit(domain)
        asked = similar_candidates(domain, config.split, asked, lambda targets, items: titles.score_all(_one_title_each(domain, targets), items))
    return asked if config.order_seed is None else in_other_order(asked, config.order_seed)


def _one_title_each(domain: Domain, targets: Sequence[str]) -> list[Example]:
    return [Example(domain.name, "", (target,), target, ()) for target in targets]


def _fitted(name: str, domain: Domain, config: InferConfig, run: Run) -> Ranker:
    roles = {i.role for i in run.spec.inputs}
    ranker = new_ranker(name, seed=config.seed)
    if "ranker" in roles:
        load_ranker(ranker, run.input_path("ranker"))
    else:
        ranker.fit(domain)
        run.facts.update(ranker.facts)
    return ranker


def _infer_llm(config: InferConfig, run: Run, domain: Domain, asked: Sequence[Example]) -> None:
    import torch

    from recmerge.lm.base import load_model, load_tokenizer
    from recmerge.lm.device import pick_device
    from recmerge.lm.encoding import Encoder, PromptSettings
    from recmerge.lm.lora import load_lora
    from recmerge.rankers.llm import LlmRanker
    from recmerge.stages.lm_refs import find_adapter

    assert config.adapter is not None
    found = find_adapter(run.workspace, config.adapter, config.base, config.trust_remote_code)
    run.facts["label"] = found.label
    device = pick_device(config.device)
    tokenizer = load_tokenizer(found.base)
    model = load_model(found.base, device, torch.bfloat16 if config.precision == "bf16" else torch.float32)
    if found.folder is not None and not found.folded:
        model = load_lora(model, found.folder)
        if config.precision == "fp32":  # in bf16 the sum would be rounded
            model = model.merge_and_unload()
    settings = PromptSettings(**run.spec.config["prompt"])
    noted = run.spec.config.get("wording")
    encoder = Encoder(tokenizer, settings, Wording(**noted) if noted else PUBLISHED_WORDING)
    ranker = LlmRanker(model, encoder, domain.titles, config.batch_size)
    if config.mode == "generate":
        _generate(ranker, asked, config, run)
    else:
        if config.normalize == "auto":
            _choose_normalization(ranker, domain, config, run)
        else:
            ranker.normalization = config.normalize
        if config.candidates == ALL:
            rank_catalogue(ranker, domain, config.split, asked, run, at_once=_USERS_OF_ALL)
        else:
            _score(ranker, asked, run)
        run.facts["scoring"] = {"method": ranker.scorer.method, "checked_against_full_nats": ranker.scorer.difference}
    run.facts["prompts"] = {"n": ranker.counts.prompts, "trimmed": ranker.counts.trimmed, "titles_cut": ranker.encoder.titles_cut}


def _score(ranker: Any, asked: Sequence[Example], run: Run) -> None:
    scores = np.zeros((len(asked), run.facts["candidates"]["n"]))
    with run.reporter.bar("ranking users", len(asked)) as bar:
        for chosen, part in ranker.score_batches(asked):
            scores[chosen] = part
            bar.advance(len(chosen))
    _write_scores(run.path, asked, scores)


def _choose_normalization(ranker: Any, domain: Domain, config: InferConfig, run: Run) -> None:
    from recmerge.rankers.normalization import best_normalization, gathered

    known = examples(domain, VALID, _CHOOSING_USERS, config.seed)
    if not known:
        raise DataError(f"nobody is asked in the valid split of '{domain.name}', so nothing can be chosen", fix="give --set normalize=sum, mean or pmi")
    found = gathered(ranker.likelihoods(known, priors=True), len(known))
    ranker.normalization, measured = best_normalization(found, [e.candidates.index(e.target) for e in known])
    run.facts["normalization"] = {"chosen": ranker.normalization, "valid_users": len(known), "mrr": measured}
    run.reporter.say(f"normalize={ranker.normalization}: MRR {', '.join(f'{how} {value:.4f}' for how, value in measured.items())} of {len(known)} valid users")


def _write_scores(folder: Path, asked: Sequence[Example], scores: np.ndarray) -> None:
    """Rank by scores (B, C): 1 + the number of other candidates scored strictly higher."""
    counted = np.where(_first_places(asked, scores.shape), scores, -np.inf)  # a candidate listed twice counts once
    ranks = 1 + (counted[:, None, :] > scores[:, :, None]).sum(-1)
    _write_rankings(folder, asked, scores, ranks.astype(np.float64))


def _first_places(asked: Sequence[Example], shape: tuple[int, ...]) -> np.ndarray:
    """Return (B, C): is this the candidate's first place in its list? The published draws repeat some."""
    first = np.zeros(shape, dtype=bool)
    for row, example in enumerate(asked):
        seen: set[str] = set()
        for column, item in enumerate(example.candidates):
            first[row, column] = item not in seen
            seen.add(item)
    return first


def _generate(ranker: Any, asked: Sequence[Example], config: InferConfig, run: Run) -> None:
    """Rank by the place in the written answer; what is not named has no score."""
    n = run.facts["candidates"]["n"]
    ranks = np.full((len(asked), n), np.nan)
    written: list[tuple[int, str, str, int, bool, int, int]] = []
    with run.reporter.bar("writing answers", len(asked)) as bar:
        for chosen, texts, parsed in ranker.generate_batches(asked, config.max_new_tokens):
            for i, text, p in zip(chosen, texts, parsed, strict=True):
                ranks[i] = [np.nan if place is None else place for place in p.places]
                written.append((i, asked[i].user_id, text, p.n_titles, p.malformed, p.n_off_list, p.n_repeated))
            bar.advance(len(chosen))
    names = ("index", USER_ID, "text", "n_titles", "malformed", "off_list", "repeated")
    frame = pl.DataFrame(written, schema=names, orient="row").sort("index").drop("index")
    frame.write_parquet(run.path / GENERATIONS_FILE, compression="zstd", statistics=False)
    _write_rankings(run.path, asked, 1.0 / ranks, ranks)
    run.facts.update(malformed=int(frame["malformed"].sum()), off_list=int((frame["off_list"] > 0).sum()))
    run.reporter.say(f"{run.facts['malformed']} malformed and {run.facts['off_list']} off-list answers of {len(asked)}; all count")


def _write_rankings(folder: Path, asked: Sequence[Example], scores: np.ndarray, ranks: np.ndarray) -> None:
    frame = pl.DataFrame(
        {
            USER_ID: [e.user_id for e in asked for _ in e.candidates],
            ITEM_ID: [c for e in asked for c in e.candidates],
            SCORE: scores.reshape(-1),
            RANK: ranks.reshape(-1),
            IS_TARGET: [c == e.target for e in asked for c in e.candidates],
        }
    )
    frame = frame.filter(pl.Series(_first_places(asked, scores.shape).reshape(-1)))
    frame = frame.with_columns(pl.col(SCORE).fill_nan(None), pl.col(RANK).fill_nan(None).cast(pl.Int32))
    frame.write_parquet(folder / RANKINGS_FILE, compression="zstd", statistics=False)
