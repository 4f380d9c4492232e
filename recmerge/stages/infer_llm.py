"""The part of `infer` that asks a language model: by likelihood, by label, or by what it writes."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recmerge.config.infer import InferConfig
from recmerge.config.prompt import PromptConfig
from recmerge.data.dataset import Domain, Example, examples
from recmerge.data.other_candidates import ALL
from recmerge.data.prompts import PUBLISHED_WORDING, Wording
from recmerge.errors import ArtifactError, DataError, UsageError
from recmerge.names import GENERATIONS_FILE, USER_ID, VALID
from recmerge.runs.directory import Run
from recmerge.runs.manifest import Input
from recmerge.runs.resolve import Found
from recmerge.runs.workspace import Workspace
from recmerge.stages.infer_all import rank_catalogue
from recmerge.stages.rankings import write_rankings, write_scores

if TYPE_CHECKING:
    from recmerge.lm.encoding import PromptSettings

LLM_CODE = (
    *("lm/backend.py", "lm/base.py", "lm/constrained.py", "lm/encoding.py", "lm/generation.py", "lm/lora.py", "lm/parsing.py", "lm/precision.py"),
    *(
        "lm/labels.py",
        "lm/scoring.py",
        "lm/scoring_method.py",
        "lm/title_tree.py",
        "lm/token_logs.py",
        "lm/tree_attention.py",
        "rankers/llm.py",
        "rankers/normalization.py",
    ),
    *("data/prompts.py", "data/dataset.py", "stages/infer.py", "stages/infer_llm.py", "stages/rankings.py"),
)
VLLM_CODE = ("lm/vllm_backend.py",)
_CHOOSING_USERS = 500
_USERS_OF_ALL = 8  # whom a language model ranks a whole catalogue for, between two words of progress


def refuse_unfitting(config: InferConfig) -> None:
    """Stop where settings do not go together, before anything is looked for.

    Args:
        config: Settings of `infer`.

    Raises:
        UsageError: They do not.
    """
    if config.ranker is not None and config.mode == "generate":
        raise UsageError(f"mode=generate is for language models, and ranker '{config.ranker}' writes no answers", fix="leave it out")
    if config.ranker is not None and (config.base or config.prompt):
        what = f"base={config.base}" if config.base else "prompt"
        raise UsageError(f"{what} is for a language model, and ranker '{config.ranker}' is asked", fix="leave it out")
    if config.normalize != "sum":
        _refuse_normalizing(config)
    if config.constrained and (config.ranker is not None or config.mode == "score"):
        raise UsageError("constrained=true is for written answers of a language model", fix="add --mode generate, or leave it out")
    if config.beams > 1 and not config.constrained:
        raise UsageError(f"beams={config.beams} needs constrained=true: a free answer is written greedily, as published", fix="add --set constrained=true")
    if config.vllm and config.backend != "vllm":
        raise UsageError("settings under vllm need backend vllm", fix="add --backend vllm")
    if config.backend == "vllm":
        _refuse_vllm(config)


def _refuse_normalizing(config: InferConfig) -> None:
    if config.ranker is not None or config.mode == "generate":
        what = f"ranker '{config.ranker}' has" if config.ranker else "written answers have"
        raise UsageError(f"normalize={config.normalize} is for likelihoods of a language model, {what} none", fix="leave it out")
    if config.normalize == "auto" and config.split == VALID:
        raise UsageError("normalize=auto is chosen on validation users, so it cannot rank them", fix="give sum, mean or pmi")


def _refuse_vllm(config: InferConfig) -> None:
    from recmerge.lm.vllm_backend import refuse_missing

    if config.ranker is not None:
        raise UsageError(f"backend vllm runs language models, and ranker '{config.ranker}' is none", fix="leave one of the two out")
    if config.device == "cpu":
        raise UsageError("backend vllm chooses its device itself, and device=cpu is asked for", fix="leave one of the two out")
    refuse_missing()


def refuse_style(config: InferConfig, prompt: dict[str, Any]) -> None:
    """Stop where a style of prompts cannot be asked in the way that is wanted.

    Args:
        config: Settings of `infer`.
        prompt: Of the adapter, or as set.

    Raises:
        UsageError: It cannot.
    """
    style = prompt["style"]
    if config.candidates == ALL and style != "open":
        what = f"--candidates all: the {style} prompt of adapter '{config.adapter}' names its candidates, so it cannot ask for a whole catalogue"
        raise UsageError(what, fix="choose an adapter that was trained with prompt.style=open, or --candidates stored, popular or similar")
    if style == "index" and config.mode == "generate":
        raise UsageError("mode=generate: an answer of prompt.style=index is one token, whose likelihoods rank all candidates", fix="use --mode score")
    if style == "index" and config.normalize != "sum":
        raise UsageError(f"normalize={config.normalize} is for titles, and answers of prompt.style=index are labels of one token", fix="leave it out")
    if config.backend == "vllm" and config.constrained:
        from recmerge.lm.vllm_backend import refuse_unguided

        refuse_unguided(style, config.beams)


def plan_adapter(config: InferConfig, workspace: Workspace, data: Found, inputs: list[Input], resolved: dict[str, Any]) -> str:
    """Add the base and the adapter to the inputs, and to the settings what hangs on them and on this machine.

    Args:
        config: Settings of `infer`; `adapter` is given.
        workspace: Where runs live.
        data: The domain.
        inputs: Gets the base and the adapter.
        resolved: Gets the prompt and the precision that runs.

    Returns:
        What to call base and adapter.

    Raises:
        ArtifactError: The adapter was trained on another base.
    """
    from recmerge.lm.base import fingerprint
    from recmerge.lm.device import pick_device
    from recmerge.lm.precision import pick_precision
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
    resolved["prompt"] = _prompt(config, prompt_settings(found.card, found.base))
    if config.precision == "auto":
        resolved["precision"] = pick_precision("auto", pick_device(config.device))
    if "wording" in data.manifest.facts and not found.card.get("prompt"):  # an adapter that recmerge trained was taught in recmerge's words
        resolved["wording"] = data.manifest.facts["wording"]
    return found.label


def _prompt(config: InferConfig, taught: "PromptSettings") -> dict[str, Any]:
    """Return the prompt as the model was taught, with what is set in its place; of another style nothing was taught."""
    asked = config.prompt.model_dump(exclude_unset=True) if config.prompt else {}
    is_same = asked.get("style", taught.style) == taught.style
    return {**(asdict(taught) if is_same else PromptConfig().model_dump()), **asked}


def infer_llm(config: InferConfig, run: Run, domain: Domain, asked: Sequence[Example]) -> None:
    """Ask the language model and write `rankings.parquet`.

    Args:
        config: Settings of `infer`; `adapter` is given.
        run: Where to write.
        domain: What is ranked.
        asked: Who is asked.
    """
    ranker = _new_ranker(config, run, domain)
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
    run.facts["prompts"] = {
        "style": ranker.encoder.settings.style,
        "n": ranker.counts.prompts,
        "trimmed": ranker.counts.trimmed,
        "titles_cut": ranker.encoder.titles_cut,
    }


def _new_ranker(config: InferConfig, run: Run, domain: Domain) -> Any:
    from recmerge.lm.base import load_tokenizer, tokenizer_sha256
    from recmerge.lm.encoding import Encoder, PromptSettings
    from recmerge.rankers.llm import LlmRanker
    from recmerge.stages.lm_refs import find_adapter

    assert config.adapter is not None
    found = find_adapter(run.workspace, config.adapter, config.base, config.trust_remote_code)
    noted = run.spec.config.get("wording")
    tokenizer = load_tokenizer(found.base)
    taught_with = found.card.get("tokenizer_sha256")
    if taught_with and taught_with != tokenizer_sha256(tokenizer):
        run.reporter.warn(f"the tokenizer or chat template of '{found.base.ref}' is not the one that adapter '{config.adapter}' was trained with")
    encoder = Encoder(tokenizer, PromptSettings(**run.spec.config["prompt"]), Wording(**noted) if noted else PUBLISHED_WORDING)
    precision = run.spec.config["precision"]  # as planned: never auto
    lora = None if found.folded else found.folder
    if config.backend == "vllm":
        from recmerge.lm.vllm_backend import VllmBackend

        backend = VllmBackend(found.base, lora, encoder, precision, config.vllm)
        ranker = LlmRanker(None, encoder, domain.titles, config.batch_size, backend)
    else:
        ranker = LlmRanker(_load(config, found.base, lora, precision), encoder, domain.titles, config.batch_size)
    run.facts.update(label=found.label, backend=ranker.scorer.name, precision=precision)
    return ranker


def _load(config: InferConfig, base: Any, lora: Any, precision: Any) -> Any:
    from recmerge.lm.base import load_model
    from recmerge.lm.device import pick_device
    from recmerge.lm.lora import can_be_merged, load_lora
    from recmerge.lm.precision import torch_dtype

    model = load_model(base, pick_device(config.device), torch_dtype(precision))
    if lora is None:
        return model
    model = load_lora(model, lora)
    return model.merge_and_unload() if precision == "fp32" and can_be_merged(model) else model  # in bf16 the sum would be rounded


def _score(ranker: Any, asked: Sequence[Example], run: Run) -> None:
    scores = np.zeros((len(asked), run.facts["candidates"]["n"]))
    with run.reporter.bar("ranking users", len(asked)) as bar:
        for chosen, part in ranker.score_batches(asked):
            scores[chosen] = part
            bar.advance(len(chosen))
    write_scores(run.path, asked, scores)


def _choose_normalization(ranker: Any, domain: Domain, config: InferConfig, run: Run) -> None:
    from recmerge.rankers.normalization import best_normalization, gathered

    known = examples(domain, VALID, _CHOOSING_USERS, config.seed)
    if not known:
        raise DataError(f"nobody is asked in the valid split of '{domain.name}', so nothing can be chosen", fix="give --set normalize=sum, mean or pmi")
    found = gathered(ranker.likelihoods(known, priors=True), len(known))
    ranker.normalization, measured = best_normalization(found, [e.candidates.index(e.target) for e in known])
    run.facts["normalization"] = {"chosen": ranker.normalization, "valid_users": len(known), "mrr": measured}
    run.reporter.say(f"normalize={ranker.normalization}: MRR {', '.join(f'{how} {value:.4f}' for how, value in measured.items())} of {len(known)} valid users")


def _generate(ranker: Any, asked: Sequence[Example], config: InferConfig, run: Run) -> None:
    """Rank by the place in the written answer; what is not named has no score."""
    n = run.facts["candidates"]["n"]
    ranks = np.full((len(asked), n), np.nan)
    written: list[tuple[int, str, str, int, bool, int, int]] = []
    with run.reporter.bar("writing answers", len(asked)) as bar:
        for chosen, texts, parsed in ranker.generate_batches(asked, config.max_new_tokens, config.beams if config.constrained else None):
            for i, text, p in zip(chosen, texts, parsed, strict=True):
                ranks[i] = [np.nan if place is None else place for place in p.places]
                written.append((i, asked[i].user_id, text, p.n_titles, p.malformed, p.n_off_list, p.n_repeated))
            bar.advance(len(chosen))
    names = ("index", USER_ID, "text", "n_titles", "malformed", "off_list", "repeated")
    frame = pl.DataFrame(written, schema=names, orient="row").sort("index").drop("index")
    frame.write_parquet(run.path / GENERATIONS_FILE, compression="zstd", statistics=False)
    write_rankings(run.path, asked, 1.0 / ranks, ranks)
    run.facts.update(malformed=int(frame["malformed"].sum()), off_list=int((frame["off_list"] > 0).sum()))
    run.reporter.say(f"{run.facts['malformed']} malformed and {run.facts['off_list']} off-list answers of {len(asked)}; all count")
