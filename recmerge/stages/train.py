"""`train`: a LoRA adapter on a domain, hybrid or union set, or another ranker."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recmerge.config.train import TrainConfig
from recmerge.data.dataset import Domain
from recmerge.errors import ConflictError
from recmerge.lm.base import BaseRef, fingerprint, load_model, load_tokenizer, tokenizer_sha256
from recmerge.lm.device import pick_device
from recmerge.lm.encoding import Encoder, PromptSettings
from recmerge.names import ADAPTER_CARD, ADAPTER_DIR, LOSS_FILE, VALID_LOSS_FILE
from recmerge.runs.directory import Run, check_unchanged, find_done, find_unfinished, write_text
from recmerge.runs.manifest import RunSpec, code_version
from recmerge.runs.reporter import Reporter, SilentReporter
from recmerge.runs.resolve import Found, resolve
from recmerge.runs.workspace import Workspace, check_name
from recmerge.stages.check import refuse_no_rows
from recmerge.stages.execute import Plan
from recmerge.stages.lm_refs import base_input, base_label, find_base
from recmerge.stages.refusals import refuse_read_buyers

_CODE = (
    *("lm/base.py", "lm/checkpoints.py", "lm/encoding.py", "lm/fused_loss.py", "lm/labels.py", "lm/lora.py", "lm/scoring.py", "lm/sequences.py", "lm/sft.py"),
    *("lm/scoring_method.py", "lm/title_tree.py", "lm/token_logs.py", "lm/tree_attention.py"),
    *("lm/trainer.py", "lm/validation.py", "data/prompts.py", "data/dataset.py", "data/draws.py", "data/training_set.py", "stages/train.py"),
)
IGNORED = ("device", "keep_checkpoints", "base", "revision")  # the base enters by its fingerprint


@dataclass(frozen=True)
class TrainJob:
    """A planned training with what it needs.

    Args:
        plan: The run.
        data: The training set's run.
        base: The base model.
        config: The settings.
        resume: An unfinished version to go on with, or None.
    """

    plan: Plan
    data: Found
    base: BaseRef
    config: TrainConfig
    resume: Path | None = None


def find_training_data(workspace: Workspace, ref: str) -> Found:
    """Find the domain or mixed set that a name means.

    Args:
        workspace: Where to look.
        ref: The name; the order of a set's domains does not matter.

    Returns:
        Its run.

    Raises:
        ArtifactError: There is none; the error names the commands that make it.
        DataError: It holds nothing to train on.
    """
    parts = ref.partition("@")[0].split("_")
    build = f"recmerge data build {' '.join(parts)} --config CONFIG"
    hint = build if len(parts) == 1 else f"{build} && recmerge data mix {' '.join(parts)}"
    found = resolve(workspace, ref, ["build", "mix"], kind="data set", hint=hint)
    refuse_no_rows([found])
    return found


def plan_train(config: TrainConfig, workspace: Workspace, ref: str, name: str | None, *, default_base: str | None = None) -> TrainJob:
    """Plan the training of a LoRA.

    Args:
        config: Its settings.
        workspace: Where runs live.
        ref: The data: a domain, hybrid or union set, in either spelling.
        name: The run's name; None: the data's name, with the base behind it where that is not the config's own.
        default_base: The config's own base.

    Returns:
        The job.
    """
    data = find_training_data(workspace, ref)
    base = find_base(workspace, config.base, config.revision, config.trust_remote_code)
    refuse_read_buyers(workspace, base.folder, data)
    if name is None:
        name = data.manifest.name
        if default_base is not None and config.base != default_base:
            name += "-" + base_label(workspace, config.base)
    check_name(name)
    inputs = (data.as_input("data", workspace), base_input(workspace, base, fingerprint(base)))
    code = code_version(*_CODE)
    seeds = {"seed": config.seed, "init_seed": config.lora.init_seed}
    spec = RunSpec("train", name, config.resolved(), inputs, code, seeds, IGNORED)
    outputs = [f"{ADAPTER_DIR}/adapter_model.safetensors", f"{ADAPTER_DIR}/adapter_config.json", f"{ADAPTER_DIR}/{ADAPTER_CARD}", LOSS_FILE]
    outputs += [VALID_LOSS_FILE] if config.patience else []
    return TrainJob(Plan(spec, tuple(outputs)), data, base, config)


def with_resume(job: TrainJob, workspace: Workspace, reporter: Reporter, *, anyway: bool) -> TrainJob:
    """Find the unfinished run to go on with.

    Args:
        job: The planned training.
        workspace: Where runs live.
        reporter: Is told where there is nothing to resume.
        anyway: Go on even if the data, settings or code changed.

    Returns:
        The job, with the folder to go on in where there is one.

    Raises:
        ConflictError: What is asked now differs from what was begun.
    """
    spec = job.plan.spec
    found = find_unfinished(workspace, "train", spec.name)
    if found is None:
        if find_done(workspace, spec) is None:
            reporter.say(f"nothing to resume for '{spec.name}': starting from step 0")
        return job
    folder, record = found
    changes = check_unchanged(record, spec)
    if changes and not anyway:
        raise ConflictError(
            f"{folder.name} of '{spec.name}' was begun with other settings: {changes}",
            fix="ask as before, add --resume-anyway, or start again without --resume",
        )
    if changes:
        reporter.warn(f"resuming although something changed: {changes}")
    return TrainJob(job.plan, job.data, job.base, job.config, folder)


def run_train(job: TrainJob, run: Run) -> None:
    """Train and write `adapter/` in peft's format, the loss curve and counts.

    Args:
        job: What to train.
        run: Where to write.
    """
    from recmerge.lm.sft import CHECKPOINTS, drop_checkpoints, save_adapter

    run.skip.add(CHECKPOINTS)
    trained = _train(job, run.path, run.workspace, run.reporter)
    folder = run.path / ADAPTER_DIR
    save_adapter(trained.model, folder)
    trained.tokenizer.save_pretrained(str(folder))
    _note_beside(job, trained, folder)
    if not job.config.keep_checkpoints:
        drop_checkpoints(run.path)
    run.facts.update(
        kind="adapter",
        domains=sorted(trained.domains),
        base={"ref": job.base.ref, "fingerprint": trained.fingerprint},
        lora_init_sha256=trained.init_sha,
        tokenizer_sha256=trained.tokenizer_sha,
        counts=trained.counts,
        steps=trained.outcome.steps,
        best_step=trained.outcome.best_step,
        validation_loss=trained.outcome.validation_loss,
        resumed_from=trained.outcome.resumed_from,
        final_loss=trained.outcome.final_loss,
        parameters_trained=sum(p.numel() for p in trained.model.parameters() if p.requires_grad),
    )
    c = trained.counts
    more = f", {c['rows_unread']} not come to" if c["rows_unread"] else ""
    run.reporter.say(f"{c['rows_trained']} rows in {c['sequences']} sequences, {c['rows_trimmed']} with trimmed history, {c['rows_dropped']} dropped{more}")


def join_training(job: TrainJob, folder: Path, workspace: Workspace) -> None:
    """Take part as another process than the first under torchrun; writes nothing of its own."""
    _train(job, folder, workspace, SilentReporter())


@dataclass
class _Trained:
    model: Any
    tokenizer: Any
    outcome: Any
    counts: dict[str, int]
    domains: Mapping[str, Domain]
    fingerprint: str
    init_sha: str
    tokenizer_sha: str


def _train(job: TrainJob, folder: Path, workspace: Workspace, reporter: Reporter) -> _Trained:
    import torch

    from recmerge.data.training_set import limit_buyers, read_training_set
    from recmerge.lm.lora import init_sha256, new_lora
    from recmerge.lm.sequences import build_sequences
    from recmerge.lm.sft import train_lora
    from recmerge.lm.validation import Validation

    config = job.config
    device = pick_device(config.device)
    data, buyers = limit_buyers(read_training_set(job.data.path, job.data.manifest, workspace), config.buyers)
    tokenizer = load_tokenizer(job.base)
    encoder = Encoder(tokenizer, PromptSettings(**config.prompt.model_dump()))
    enough = None if config.steps is None else config.steps * config.batch_size
    n_prompts = min(n for n in (enough, config.max_rows, data.rows.height) if n is not None)
    with (SilentReporter() if encoder.settings.style == "open" else reporter).bar("prompts", n_prompts) as bar:
        sequences = build_sequences(data, encoder, config.max_rows, enough=enough, seed=config.seed, advance=bar.advance)
    validation = Validation(data.domains, encoder, config.eval_buyers, buyers) if config.patience else None
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    model = load_model(job.base, device, dtype)
    lora = config.lora.model_dump()
    model = new_lora(model, **lora)
    started_from = init_sha256(model)
    outcome = train_lora(
        model,
        tokenizer,
        sequences,
        validation,
        _sft_settings(config, device),
        folder,
        reporter,
        resume_command=f"recmerge train {job.data.manifest.name} --name {job.plan.spec.name} --resume (with the same settings)",
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
    )
    return _Trained(model, tokenizer, outcome, sequences.counts.as_dict(), data.domains, fingerprint(job.base), started_from, tokenizer_sha256(tokenizer))


def _sft_settings(config: TrainConfig, device: Any) -> Any:
    from recmerge.lm.sft import SftSettings

    same = ("epochs", "steps", "batch_size", "micro_batch_size", "learning_rate", "scheduler", "warmup_ratio", "weight_decay", "max_grad_norm")
    more = ("gradient_checkpointing", "save_every", "patience", "eval_every", "zero_loss_steps", "seed")
    values = {key: getattr(config, key) for key in same + more}
    return SftSettings(**values, bf16=config.precision == "bf16", use_cpu=device.type == "cpu", extra=dict(config.sft))


def _note_beside(job: TrainJob, trained: _Trained, folder: Path) -> None:
    """Write what belongs to the adapter: its card, a filled model card, a stable adapter_config.json."""
    import json

    from recmerge.lm.lora import adapter_card, settle_adapter_config

    prompt = PromptSettings(**job.config.prompt.model_dump())
    manifest = job.data.manifest
    card = adapter_card(
        base={"ref": job.base.ref, "revision": job.base.revision, "fingerprint": trained.fingerprint},
        tokenizer_sha=trained.tokenizer_sha,
        init_sha=trained.init_sha,
        domains=sorted(trained.domains),
        cuts={d.cuts for d in trained.domains.values()},
        prompt=prompt,
        data={"name": manifest.name, "content_sha256": manifest.content_sha256},
    )
    write_text(folder / ADAPTER_CARD, json.dumps(card, indent=2) + "\n")
    settle_adapter_config(folder, job.base.source, job.base.revision)
    write_text(folder / "README.md", _model_card(job, trained))


def _model_card(job: TrainJob, trained: _Trained) -> str:
    lora, counts = job.config.lora, trained.counts
    is_hub = job.base.folder is None
    head = ["---", *([f"base_model: {job.base.ref}"] if is_hub else []), "library_name: peft", "tags: [lora, sft, trl, recommendation, recmerge]", "---"]
    body = [
        f"# {job.plan.spec.name}",
        "",
        f"A LoRA adapter for next-purchase recommendation, trained by recmerge on {', '.join(sorted(trained.domains))}.",
        "",
        f"- Base: {job.base.ref} (fingerprint {trained.fingerprint[:12]})",
        f"- Data: {job.data.manifest.name}, content {job.data.manifest.content_sha256[:12]}; {counts['rows_trained']} rows, "
        f"{counts['rows_trimmed']} with trimmed history, {counts['rows_dropped']} dropped",
        f"- LoRA: rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}, modules {lora.target_modules}, init seed {lora.init_seed}",
        f"- Training: {trained.outcome.steps} steps of {job.config.batch_size} sequences, peak rate {job.config.learning_rate:g}, seed {job.config.seed}; "
        f"loss at the end {trained.outcome.final_loss:.4f}",
        f"- Prompt: {job.config.prompt.style}, at most {job.config.prompt.max_length} tokens (see {ADAPTER_CARD})",
        "",
        "Load with `PeftModel.from_pretrained(base, this_folder)`, or rank with `recmerge infer DOMAIN --adapter this_folder`.",
        "",
    ]
    return "\n".join(head + body)
