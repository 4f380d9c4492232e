"""`infer`: rank every test user's stored candidates with an adapter, a base alone, or another ranker."""

from collections.abc import Sequence

from recmerge.config.infer import InferConfig
from recmerge.data.dataset import Domain, Example, candidates_sha256, examples, read_domain
from recmerge.data.other_candidates import ALL, POPULAR, SIMILAR, STORED, in_other_order, popular_candidates, similar_candidates
from recmerge.errors import DataError, UsageError
from recmerge.names import GENERATIONS_FILE, RANKINGS_FILE, TARGETS_FILE, VALID
from recmerge.rankers import CatalogueRanker, Ranker, load_ranker, ranker_sources
from recmerge.rankers.tfidf import TfidfRanker
from recmerge.runs.directory import Run
from recmerge.runs.manifest import Input, RunSpec, code_version
from recmerge.runs.resolve import resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.execute import Plan
from recmerge.stages.infer_all import rank_catalogue, refuse_unable
from recmerge.stages.infer_llm import LLM_CODE, VLLM_CODE, infer_llm, plan_adapter, refuse_style, refuse_unfitting
from recmerge.stages.rankings import write_scores
from recmerge.stages.train_ranker import find_ranker, new_on_device

_RANKER_CODE = ("data/dataset.py", "stages/infer.py", "stages/rankings.py")
_OTHER_CODE = ("data/candidates.py", "data/draws.py", "data/other_candidates.py", "rankers/per_domain.py", "rankers/tfidf.py", "stages/infer_all.py")
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
    refuse_unfitting(config)
    if config.device == "cuda":
        from recmerge.lm.device import pick_device

        pick_device("cuda")  # a missing GPU is an error for every ranker, also where it would not be used
    data = resolve(workspace, domain, ["build"], kind="domain", hint=f"recmerge data build {domain} --config CONFIG")
    inputs: list[Input] = [data.as_input("data", workspace)]
    resolved = config.resolved()
    more = () if config.candidates == STORED and config.order_seed is None else _OTHER_CODE
    if config.ranker is not None:
        asked = find_ranker(workspace, config.ranker, data)
        ranker = new_on_device(asked.name, config.device, seed=config.seed)  # refuses what cannot be used before anything is written
        if config.candidates == ALL:
            refuse_unable(ranker, f"ranker '{config.ranker}'")
        label, code = asked.label, code_version(*ranker_sources(asked.name), *_RANKER_CODE, *more)
        inputs += [asked.run.as_input("ranker", workspace)] if asked.run else []
        resolved["ranker"] = asked.name
    else:
        label = plan_adapter(config, workspace, data, inputs, resolved)
        refuse_style(config, resolved["prompt"])
        code = code_version(*LLM_CODE, *(VLLM_CODE if config.backend == "vllm" else ()), *more)
    generated = ("-generate" if config.mode == "generate" else "") + ("-constrained" if config.constrained else "")
    valid = "-valid" if config.split == VALID else ""
    other = ("" if config.candidates == STORED else f"-{config.candidates}") + ("" if config.order_seed is None else f"-order{config.order_seed}")
    other += ("" if config.normalize == "sum" else f"-{config.normalize}") + ("" if config.backend == "transformers" else f"-{config.backend}")
    name = check_name(name or f"{data.manifest.name}-{label}{generated}{valid}"[: 100 - len(other)] + other)
    spec = RunSpec("infer", name, resolved, tuple(inputs), code, {"seed": config.seed}, IGNORED)
    outputs = (*((GENERATIONS_FILE,) if config.mode == "generate" else ()), *((TARGETS_FILE,) if config.candidates == ALL else ()))
    return Plan(spec, (RANKINGS_FILE, *outputs))


def _refuse_whole(config: InferConfig) -> None:
    if config.order_seed is not None:
        raise UsageError(f"order_seed={config.order_seed} puts lists in another order, and --candidates all has no lists", fix="leave one of the two out")
    if config.mode == "generate":
        raise UsageError("--candidates all ranks by likelihood, and mode=generate writes answers", fix="leave one of the two out")


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
        ranker = _fitted(run.spec.config["ranker"], domain, config, run)
        if config.candidates == ALL:
            assert isinstance(ranker, CatalogueRanker)  # the plan refuses others
            rank_catalogue(ranker, domain, config.split, asked, run)
        else:
            write_scores(run.path, asked, ranker.score(asked))
    else:
        infer_llm(config, run, domain, asked)


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
    ranker = new_on_device(name, config.device, seed=config.seed)
    if "ranker" in roles:
        load_ranker(ranker, run.input_path("ranker"))
    else:
        ranker.fit(domain)
        run.facts.update(ranker.facts)
    return ranker
