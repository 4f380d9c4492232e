"""`recmerge base pretrain`."""

from functools import partial

from recmerge.cli.apps import base_app
from recmerge.cli.options import Common, command


@command(base_app, "pretrain")
def pretrain(common: Common) -> None:
    """Train a small causal language model and its tokenizer on catalogue text (titles, brands, categories)."""
    from pathlib import Path

    from recmerge.config.base import BaseConfig
    from recmerge.stages.base import plan_base, run_base
    from recmerge.stages.execute import execute

    config = common.load(BaseConfig, "base", {}, default="sample")
    name = common.name or (Path(common.config_ref).stem if common.config_ref else "sample")
    plan = plan_base(config, common.workspace, name)
    if common.dry_run:
        return common.preview([plan])
    done = execute(plan, partial(run_base, config), common.workspace, common.reporter, again=common.again)
    common.finish(done, f"recmerge train DOMAIN --base {name}")
    return None
