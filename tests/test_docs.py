"""The command line documents itself, the README names every command, and what the README types is right."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from recmerge.cli import main as cli_main
from recmerge.cli.apps import app
from recmerge.config.loader import find_config
from recmerge.merging import METHODS
from recmerge.rankers import RANKERS
from tests.conftest import ROOT
from tests.figures import updated

README = (ROOT / "README.md").read_text(encoding="utf-8")
HEAVY = ("torch", "transformers", "trl", "peft", "polars", "numpy", "datasets", "jinja2", "rich.console")
CONFIG_OF = {("data", "build"): "data", ("data", "mix"): "mix", ("base", "pretrain"): "base"}  # others: the command's own name


def command_tree() -> Any:
    cli_main._register()
    return typer.main.get_command(app)


def commands(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, child in node.commands.items():
        if hasattr(child, "commands"):
            yield from commands(child, (*path, name))
        else:
            yield (*path, name), child


COMMANDS = dict(commands(command_tree()))


def test_the_tree_is_the_contract():
    nested = {("data", c) for c in ("fetch", "build", "mix", "check", "stats", "export")} | {("base", "pretrain")}
    nested |= {("runs", c) for c in ("list", "show", "lineage")}
    assert set(COMMANDS) == {(c,) for c in ("doctor", "demo", "train", "merge", "infer", "eval", "ablate")} | nested


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_and_its_options_have_help(path: tuple[str, ...]):
    command = COMMANDS[path]
    assert command.help
    assert command.help.splitlines()[0].endswith((".", ":"))
    for option in command.params:
        assert getattr(option, "help", None), f"{' '.join(path)} {option.name} has no help"
    assert {"--json", "--quiet", "--verbose", "--debug", "--workspace"} <= {o for p in command.params for o in p.opts}


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_readme_names_a_command(path: tuple[str, ...]):
    head, *rest = path
    pattern = rf"recmerge {head}[^\n|]*\b{rest[0]}\b" if rest else rf"recmerge {head}\b"
    assert re.search(pattern, README), f"the README does not name `recmerge {' '.join(path)}`"


def typed() -> list[str]:
    """Return the words after `recmerge` of every command in the README's shell blocks."""
    found = []
    for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", README, flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r";|&&|\|", line.partition(" #")[0]):
                match = re.search(r"(?:^|\bdo |\$ |-m )\s*recmerge (.+)", part)
                if match:
                    found.append(match[1].strip())
    return found


def test_the_readme_types_commands():
    assert len(typed()) >= 10


@pytest.mark.parametrize("line", typed())
def test_a_command_of_the_readme_parses(line: str):
    words = shlex.split(line)
    node, path = command_tree(), []
    while hasattr(node, "commands"):
        assert words[0] in node.commands, line
        node = node.commands[words[0]]
        path.append(words.pop(0))
    context = node.make_context(" ".join(path), words)
    ref = context.params.get("config_ref") or context.params.get("file")
    if ref and not ref.endswith(".yaml"):
        find_config(CONFIG_OF.get(tuple(path), path[0]), ref)


@pytest.mark.parametrize("name", METHODS)
def test_the_readme_names_a_merge_method(name: str):
    assert f"`{name}`" in README


@pytest.mark.parametrize("name", RANKERS)
def test_the_readme_or_its_commands_name_a_ranker(name: str):
    assert re.search(rf"\b{name}\b", README)


def test_the_figures_of_the_readme_are_the_published_ones():
    assert README.count("<!-- figures: ") >= 1
    assert updated(README) == README, "bring the tables up to date with `python -m tests.figures`"


def test_links_to_files_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    here = [link for link in links if "://" not in link]
    assert here
    missing = [link for link in here if not (ROOT / link).exists()]
    assert not missing


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["runs", "list", "--workspace", "/nowhere-at-all"]])
def test_help_imports_nothing_heavy(words: list[str]):
    # the bound of 0.3 s hangs on this, and it can be checked on a busy machine
    script = f"import sys; from recmerge.cli.main import main; main({words!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    loaded = set(done.stderr.split())
    assert "recmerge.cli.train" in loaded
    heavy = {*HEAVY, "pydantic"} if words == ["--help"] else set(HEAVY)  # typer itself needs pydantic to parse a command's options
    assert not loaded & heavy
