"""What runs the cells of an ablation; one engine, one file."""

from recmerge.ablation.engines.local import run_local

ENGINES = {"local": run_local}
