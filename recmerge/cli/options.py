"""The options every command shares, declared once."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from recmerge.cli.console import ConsoleReporter, emit_json
from recmerge.errors import UsageError

if TYPE_CHECKING:
    from recmerge.config.loader import Settings
    from recmerge.runs.workspace import Workspace
    from recmerge.stages.execute import Done, Plan

    Config = TypeVar("Config", bound=Settings)

_ALWAYS = {
    "workspace_dir": Annotated[
        Path | None, typer.Option("--workspace", help="Folder that holds data/ and runs/; default: the current one.", envvar="RECMERGE_WORKSPACE")
    ],
    "as_json": Annotated[bool, typer.Option("--json", help="Exactly one JSON document on stdout.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="More detail; with --json, progress on stderr too.")],
    "debug": Annotated[bool, typer.Option("--debug", help="A traceback with an error.")],
}
_RUN = {
    "name": Annotated[str | None, typer.Option("--name", help="The run's name; the default says what it is.")],
    "again": Annotated[bool, typer.Option("--again", help="A new version even if the same run is complete.")],
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Print the resolved config and planned outputs; write nothing.")],
}
_CONFIG = {
    "config_ref": Annotated[str | None, typer.Option("--config", "-c", help="A YAML file or the name of a shipped config.")],
    "overrides": Annotated[list[str] | None, typer.Option("--set", help="Override one setting: a.b=value. May be repeated.", metavar="KEY=VALUE")],
}


@dataclass
class Common:
    """The shared options of one call, and what a command does with them."""

    workspace_dir: Path | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False
    name: str | None = None
    again: bool = False
    dry_run: bool = False
    config_ref: str | None = None
    overrides: list[str] | None = None
    reporter: ConsoleReporter = field(default_factory=ConsoleReporter)

    @property
    def workspace(self) -> "Workspace":
        """The workspace the command works in."""
        from recmerge.runs.workspace import Workspace

        root = (self.workspace_dir or Path.cwd()).expanduser()
        if self.workspace_dir is not None and root.exists() and not root.is_dir():
            raise UsageError(f"--workspace {root} is not a folder", fix="give a folder")
        return Workspace(root.resolve())

    def load(self, schema: "type[Config]", command: str, flags: Mapping[str, Any], default: str | None = None) -> "Config":
        """Resolve the command's settings from `--config`, its flags and `--set`."""
        from recmerge.config.loader import load

        return load(schema, command, self.config_ref or default, flags, self.overrides or ())

    def preview(self, plans: "list[Plan]") -> None:
        """Answer `--dry-run`: the resolved configs and planned outputs."""
        import yaml

        from recmerge.runs.directory import find_done

        shown = []
        for plan in plans:
            done = None if self.again else find_done(self.workspace, plan.spec)
            folder = self.workspace.stage_dir(plan.spec.stage) / plan.spec.name
            shown.append(
                {
                    "stage": plan.spec.stage,
                    "name": plan.spec.name,
                    "config": plan.spec.config,
                    "inputs": [{"role": i.role, "path": i.path} for i in plan.spec.inputs],
                    "outputs": [str(folder / (done.version if done else "vNNN") / o) for o in plan.outputs],
                    "already_done": done.version if done else None,
                }
            )
        if self.as_json:
            emit_json({"dry_run": True, "runs": shown} if len(shown) != 1 else {"dry_run": True, **shown[0]})
        else:
            from recmerge.cli.console import emit

            emit(yaml.safe_dump_all(shown, sort_keys=False, allow_unicode=True).rstrip())

    def finish(self, done: "list[Done] | Done", next_command: str, **extra: Any) -> None:
        """Answer with the run directories: one JSON document, or lines that end with the next command."""
        runs = done if isinstance(done, list) else [done]
        if self.as_json:
            documents = [_document(d) for d in runs]
            emit_json({**documents[-1], **({"runs": documents} if len(documents) > 1 else {}), **extra})
            return
        for item in runs:
            m = item.manifest
            word = "wrote" if item.fresh else "already done:"
            where = item.path if item.fresh else f"{m.version} {item.path}"
            self.reporter.say(f"{word} {where}")
        self.reporter.say(f"next: {next_command}")


def _document(done: "Done") -> dict[str, Any]:
    m = done.manifest
    return {
        "run_dir": str(done.path),
        "stage": m.stage,
        "name": m.name,
        "version": m.version,
        "already_done": not done.fresh,
        "outputs": [{**o, "path": str(done.path / o["path"])} for o in m.outputs],
        "facts": m.facts,
    }


def command(app: typer.Typer, name: str, *, run: bool = True, config: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a command with the shared options added to its own.

    The function's first parameter, `common`, receives them as a `Common`.

    Args:
        app: The Typer application.
        name: The command's name.
        run: Whether it makes a run (`--name`, `--again`, `--dry-run`).
        config: Whether it has settings (`--config`, `--set`).

    Returns:
        The decorator.
    """
    shared = {**_ALWAYS, **(_RUN if run else {}), **(_CONFIG if config else {})}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [p for p in inspect.signature(function).parameters.values() if p.name != "common"]

        def wrapper(**values: Any) -> Any:
            options = {key: values.pop(key) for key in shared}
            if options.get("name") == "":
                raise UsageError("--name is given nothing", fix="give a name, or leave the option out")
            common = Common(**options)
            common.reporter = ConsoleReporter(quiet=common.quiet or (common.as_json and not common.verbose), verbose=common.verbose)
            return function(common=common, **values)

        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=False if get_args(annotation)[0] is bool else None)
            for key, annotation in shared.items()
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        wrapper.__doc__ = function.__doc__
        wrapper.__name__ = function.__name__
        app.command(name, help=inspect.getdoc(function))(wrapper)
        return function

    return decorate


def split_list(text: str | None) -> list[str] | None:
    """Split a comma-separated flag; None stays None.

    Args:
        text: The flag's value.

    Returns:
        Its parts.

    Raises:
        UsageError: There is none, as where a shell's variable is not set.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"an option that takes a list is given nothing: '{text}'", fix="name what it is to hold, or leave the option out")
    return parts
