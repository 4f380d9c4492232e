"""From an ablation's settings to its graph of commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recmerge.ablation.graph import FUSE_FLAG, FUSED_LABEL, Cell, Graph, Use
from recmerge.ablation.grid import SEED, Point, flatten, points, set_words
from recmerge.ablation.systems import check_domains, check_options, is_trained, known_settings, split_domains
from recmerge.config.ablate import (
    DOMAIN_MARK,
    MATRIX_STAGES,
    NO_ADAPTER,
    TARGET_MARK,
    VALID_SUFFIX,
    AblateConfig,
    MergeSystemConfig,
    StageConfig,
    SystemConfig,
    slug,
)
from recmerge.config.loader import load
from recmerge.config.train import TrainConfig
from recmerge.errors import ConfigError, unknown_name
from recmerge.names import VALID
from recmerge.runs.workspace import check_name

DEFAULT_TRAIN = "nano"  # the config that `recmerge train` takes by default


def plan_graph(config: AblateConfig, folder: Path) -> Graph:
    """List the commands an ablation stands for.

    Args:
        config: Its settings.
        folder: Where relative paths of its configs start.

    Returns:
        Every command once, whoever needs it: a hybrid that two targets or two systems name, in either order, is one cell.

    Raises:
        ConfigError: A system names an unknown domain, or the training config does not load.
        UsageError: A name is not allowed as a run's name.
    """
    check_name(config.name, "ablation name")
    for domain in config.data.domains:
        check_name(domain, "domain")
    builder = _Builder(config, folder)
    for point in points(config.seeds, config.matrix):
        for target in config.targets:
            builder.evaluate(target, point)
    builder.graph.sort()
    return builder.graph


class _Builder:
    def __init__(self, config: AblateConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.graph = Graph()

    def evaluate(self, target: str, point: Point) -> None:
        """Add the comparison of all systems on one target, with everything it needs."""
        infers = {}
        for label, system in self.config.systems.items():
            key = None if system.fuse is not None else self.infer(label, system, target, point)
            if key is not None:
                infers[label] = key
        name = f"{self.config.name}-{target}{point.suffix(MATRIX_STAGES, every_seed=True)}"
        command: list[str | Use] = ["eval", Use(tuple(infers.values()))]
        if self.config.baseline in infers:
            command.append(Use((infers[self.config.baseline],), flag="--baseline"))
        fused = self.fuse(infers, target, point)
        command += [*fused.uses(), "--name", name, *self._settings(self.config.eval, fused.settings)]
        labels = {"target": target, **point.labels(), **({FUSED_LABEL: fused.label} if fused.twins else {})}
        self.graph.add(Cell("eval", name, tuple(command), wants=tuple(infers.values()), extras=fused.twins, labels=labels))

    def fuse(self, infers: Mapping[str, str], target: str, point: Point) -> "_Fused":
        """Add the rankings of validation events that the fused system is fitted on; none where fewer than two of its parts make sense for the target."""
        found = self.config.fusion()
        if found is None:
            return _Fused()
        label, fuse = found
        parts = [part for part in fuse.of if part in infers]
        if len(parts) < 2:
            return _Fused()
        users = {} if fuse.fit_users is None else {"users": fuse.fit_users}
        twins = [self.infer(part, self.config.systems[part], target, point, valid=users) for part in parts]
        model = {} if fuse.model is None else {"fusion_model": fuse.model}
        return _Fused(label, tuple(infers[part] for part in parts), tuple(key for key in twins if key is not None), model)

    def infer(self, label: str, system: SystemConfig, target: str, point: Point, valid: Mapping[str, Any] | None = None) -> str | None:
        """Add one system's rankings of a target, with settings for `valid` those of validation events; None where it makes no sense for that target."""
        if system.merge is not None and system.merge.seeds is not None:
            point = point.without_seed()  # a soup is the same whatever the point's own seed
        stages = {"infer"}
        needs = [self.build(target)]
        command: list[str | Use] = ["infer", Use((needs[0],))]
        if system.ranker is not None:
            trained = self.ranker(label, system, target, point, stages)
            command += ["--ranker", system.ranker if trained is None else Use((trained,))]
            needs += [] if trained is None else [trained]
        elif system.adapter == NO_ADAPTER:
            command += ["--adapter", NO_ADAPTER, *self._zero_shot(system)]
        else:
            made = self._adapter(label, system, target, point, stages)
            if made is None:
                return None
            command += ["--adapter", made] if isinstance(made, str) else ["--adapter", *made.command]
            needs += [] if isinstance(made, str) else made.needs
        name = f"{target}-{slug(label)}{point.suffix(stages)}{'' if valid is None else VALID_SUFFIX}"
        command += ["--name", name, *([] if valid is None else ["--split", VALID])]
        command += self._settings(self.config.infer, {**point.overrides("infer"), **flatten(system.set), **(valid or {})})
        labels = {"system": label, "target": target}
        return self.graph.add(Cell("infer", name, tuple(command), needs=tuple(needs), labels=labels))

    def _adapter(self, label: str, system: SystemConfig, target: str, point: Point, stages: set[str]) -> "str | _Made | None":
        """Add what makes a system's adapter; note the stages whose settings matter to it."""
        own = _Own(slug(label), flatten(system.train)) if system.train else None
        if system.merge is not None:
            return self.merge(label, system.merge, target, point, stages, own)
        refs = "_".join(system.union or ()) or system.adapter or ""
        return self._one_adapter(refs, system.union, target, point, stages, own)

    def merge(self, label: str, merge: MergeSystemConfig, target: str, point: Point, stages: set[str], own: "_Own | None" = None) -> "_Made | None":
        """Add a merge and the adapters it is made of."""
        check_options(label, merge)
        if merge.adapters is not None:
            names = merge.adapters
        else:
            alone = (merge.target or "").replace(TARGET_MARK, target)
            sources = merge.sources if merge.sources is not None else self.config.data.domains
            names = [alone, *(f"{alone}_{s}" for s in sources if s.replace(TARGET_MARK, target) != alone)]
        words: list[str] = []
        keys: list[str] = []
        if merge.seeds is None:
            parts = [self._one_adapter(name, None, target, point, stages, own) for name in names]
        else:
            parts = [self._one_adapter(names[0], None, target, point.with_seed(seed), stages, own) for seed in merge.seeds]
        if any(part is None for part in parts):
            return None
        stages.add("merge")
        for part in parts:
            words += [part] if isinstance(part, str) else []
            keys += part.needs if isinstance(part, _Made) else []
        if words and keys:
            raise ConfigError(f"systems.{label}: merges adapters of this ablation with given ones ({words[0]})", fix="name only one sort in one system")
        name = f"{target}-{slug(label)}{point.suffix(stages)}"
        command: list[str | Use] = ["merge", "--adapters", Use(tuple(keys), joined=True) if keys else ",".join(words)]
        command += ["--method", merge.method, "--name", name]
        command += ["--weights", ",".join(f"{w:g}" for w in merge.weights)] if merge.weights is not None else []
        overrides = point.overrides("merge")
        rank_out = overrides.pop("rank_out", merge.rank_out)
        command += ["--rank-out", str(rank_out)] if rank_out is not None else []
        command += set_words({**merge.set, **overrides})
        return _made(self.graph.add(Cell("merge", name, tuple(command), needs=tuple(keys), labels={"system": label, "target": target})))

    def _one_adapter(
        self, ref: str, union: Sequence[str] | None, target: str, point: Point, stages: set[str], own: "_Own | None" = None
    ) -> "str | _Made | None":
        ref = ref.replace(TARGET_MARK, target)
        if "/" in ref or "@" in ref:
            return ref  # an adapter that exists already
        domains = [u.replace(TARGET_MARK, target) for u in union] if union else self._domains_in(ref)
        check_domains(domains, self.config.data.domains)
        if union:
            domains = list(dict.fromkeys(domains))
        if len(set(domains)) < len(domains):
            return None  # the target as its own source
        stages |= {"train", "mix"} if len(domains) > 1 else {"train"}
        return _made(self.train(sorted(domains), point, own))

    def _domains_in(self, ref: str) -> list[str]:
        """Split `sports_beauty` into domains; a domain may hold a '_' itself."""
        found = split_domains(ref, self.config.data.domains)
        if found is None:
            known = [*self.config.data.domains, *(f"{TARGET_MARK}_{d}" for d in self.config.data.domains)]
            raise ConfigError(unknown_name("adapter", ref, known), fix="join domains of data.domains by '_', or give a path or name@vNNN")
        return found

    def train(self, domains: Sequence[str], point: Point, own: "_Own | None" = None) -> str:
        """Add the training of one adapter on one domain, hybrid or union."""
        data = self.build(domains[0]) if len(domains) == 1 else self.mix(domains, point)
        mixed = {"mix"} if len(domains) > 1 else set()
        base = flatten(self.config.train.set).get("base")
        name = "_".join(domains) + (f"-{Path(str(base)).name}" if base else "") + point.suffix({"train", *mixed})
        name += f"-{own.label}" if own else ""
        command: list[str | Use] = ["train", Use((data,)), *self._settings(self.config.train, {**point.overrides("train"), **(own.settings if own else {})})]
        command += ["--name", name] if name != self.graph.cells[data].name else []
        return self.graph.add(Cell("train", name, tuple(command), needs=(data,), labels={"data": "_".join(domains), "point": point.label()}))

    def ranker(self, label: str, system: SystemConfig, target: str, point: Point, stages: set[str]) -> str | None:
        """Add the training of a ranker, for the target or for all domains of its union at once; None where it is fitted by the way."""
        assert system.ranker is not None
        if not is_trained(system):
            return None
        domains = sorted({d.replace(TARGET_MARK, target) for d in system.union or [target]})
        check_domains(domains, self.config.data.domains)
        varied = known_settings(system, point.overrides("rankers"))
        stages |= {"train"} | ({"mix"} if len(domains) > 1 else set()) | ({"rankers"} if varied else set())
        data = self.build(domains[0]) if len(domains) == 1 else self.mix(domains, point)
        name = f"{'_'.join(domains)}-{slug(label)}{point.suffix(stages)}"
        seed = {"seed": point.settings[SEED]} if SEED in point.settings else {}
        own = {f"ranker.{key}": value for key, value in flatten({**known_settings(system, self.config.rankers), **varied, **system.train}).items()}
        command: list[str | Use] = ["train", Use((data,)), "--ranker", system.ranker, *set_words({**own, **seed}), "--name", name]
        return self.graph.add(Cell("train", name, tuple(command), needs=(data,), labels={"data": "_".join(domains), "point": point.label()}))

    def mix(self, domains: Sequence[str], point: Point) -> str:
        """Add a hybrid, or the union of more than two domains."""
        builds = tuple(self.build(d) for d in domains)
        name = "_".join(domains) + point.suffix({"mix"})
        changed = {**flatten(self.config.mix.set), **point.overrides("mix")}
        command: list[str | Use] = ["data", "mix", Use(builds), *(["--union"] if len(domains) > 2 else [])]
        command += [*self._settings(self.config.mix, point.overrides("mix")), *(["--name", name] if changed or self.config.mix.config else [])]
        return self.graph.add(Cell("mix", name, tuple(command), needs=builds))

    def build(self, domain: str) -> str:
        """Add a domain's build."""
        stage = self.config.data
        config = stage.config.replace(DOMAIN_MARK, domain) if stage.config else None
        command = ("data", "build", domain, *self._settings(StageConfig(config=config, set=stage.set), {}))
        return self.graph.add(Cell("build", domain, command))

    def _settings(self, stage: StageConfig, overrides: dict[str, Any]) -> list[str]:
        words = ["--config", self._config_ref(stage.config)] if stage.config else []
        return words + set_words({**flatten(stage.set), **overrides})

    def _config_ref(self, ref: str) -> str:
        return str((self.folder / ref).resolve()) if ref.endswith((".yaml", ".yml")) else ref

    def _zero_shot(self, system: SystemConfig) -> list[str]:
        """Return the base and prompt of a run without an adapter: those the adapters are trained with."""
        ref = self.config.train.config or DEFAULT_TRAIN
        trained = load(TrainConfig, "train", self._config_ref(ref), {}, set_words(self.config.train.set)[1::2])
        prompt = trained.prompt.model_dump(exclude_defaults=True)
        return ["--base", system.base or trained.base, *set_words({f"prompt.{k}": v for k, v in prompt.items()})]


@dataclass(frozen=True)
class _Own:
    """Settings of training that one system has for itself, and what its runs are called by."""

    label: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class _Fused:
    """A fused system: its parts' rankings of test events and, in the same order, of validation events."""

    label: str = ""
    parts: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def uses(self) -> list[Use]:
        """Return the words of the evaluation; they stand together or not at all."""
        everything = (*self.parts, *self.twins)
        return [Use(keys, flag, joined=True, only_with=everything) for flag, keys in ((FUSE_FLAG, self.parts), ("--fit-on", self.twins)) if keys]


class _Made:
    """An adapter that a cell of the graph makes."""

    def __init__(self, key: str) -> None:
        self.needs = [key]
        self.command = [Use((key,))]


def _made(key: str) -> _Made:
    return _Made(key)
