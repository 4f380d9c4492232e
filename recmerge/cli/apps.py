"""The tree of commands: each file beside this one hangs its own into it."""

from typing import Annotated

import typer

import recmerge

app = typer.Typer(
    name="recmerge",
    help="Weave LoRA adapters of several domains into one recommender (WeaveRec), and prove whether it helps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Fetch, build, mix, check, describe and export data sets.", no_args_is_help=True, rich_markup_mode=None)
base_app = typer.Typer(help="Make small base language models.", no_args_is_help=True, rich_markup_mode=None)
runs_app = typer.Typer(help="What exists, and from what it came.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(base_app, name="base")
app.add_typer(runs_app, name="runs")


def _version(value: bool) -> None:
    if value:
        print(f"recmerge {recmerge.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Weave LoRA adapters of several domains into one recommender."""
