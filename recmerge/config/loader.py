"""Defaults < YAML < flags and `--set`: one resolved, frozen config."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

import recmerge
from recmerge.config.yaml_file import parse_scalar, read_yaml
from recmerge.errors import ConfigError, UsageError, unknown_name
from recmerge.names import PACKAGE_PREFIX

Config = TypeVar("Config", bound="Settings")


class Settings(BaseModel):
    """Base of every settings class: typed, frozen, and a mistyped key cannot pass."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def resolved(self) -> dict[str, Any]:
        """Return the settings as JSON-like values, as the manifest records them."""
        return self.model_dump(mode="json")


def shipped_dir() -> Path:
    """Return the folder of shipped configs, in a checkout or an installed package."""
    package = Path(recmerge.__file__).parent
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_names(command: str) -> list[str]:
    """Return the names of a command's shipped configs."""
    return sorted(p.stem for p in (shipped_dir() / command).glob("*.yaml"))


def find_config(command: str, ref: str) -> Path:
    """Find a config by path or shipped name.

    Args:
        command: The command's folder under `configs/`.
        ref: A path to a YAML file, or a shipped name without ending.

    Returns:
        The file.

    Raises:
        ConfigError: There is neither such a file nor such a name.
    """
    path = Path(ref)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise ConfigError(f"config {ref} does not exist", fix=f"give an existing file or one of: {', '.join(shipped_names(command))}")
        return path
    shipped = shipped_dir() / command / f"{ref}.yaml"
    if Path(ref).name != ref or not shipped.is_file():
        raise ConfigError(unknown_name(f"{command} config", ref, shipped_names(command)), fix="name one of these or give the path of a YAML file")
    return shipped


def load(schema: type[Config], command: str, ref: str | None, flags: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Resolve a command's settings.

    Args:
        schema: The settings class.
        command: The command's folder under `configs/`.
        ref: `--config`: a file or shipped name; None for the defaults alone.
        flags: Values of flags by dotted key; None means not given.
        overrides: `--set` texts, `a.b=c`.

    Returns:
        The frozen settings. Relative paths of a YAML (fields whose type is Path) are made absolute from its own folder.

    Raises:
        ConfigError: Something does not fit; the line names the key, the file and line, and what is allowed.
    """
    path = find_config(command, ref) if ref is not None else None
    values, lines = read_yaml(path) if path else ({}, {})
    if path:
        _anchor_paths(schema, values, path.parent)
    given: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            _put(given, key.split("."), value)
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise UsageError(f"--set '{text}' is not of the form key=value", fix="write e.g. --set lora.rank=8")
        _put(given, key.strip().split("."), parse_scalar(value))
    _anchor_paths(schema, given, Path.cwd())
    merged = _merge(values, given)
    try:
        return schema.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, schema, path, lines) from None


def is_path_field(schema: type[BaseModel], name: str) -> bool:
    """Tell whether a settings field holds paths (it says so in its schema extra)."""
    field = schema.model_fields.get(name)
    extra = field.json_schema_extra if field else None
    return isinstance(extra, dict) and bool(extra.get("path"))


def _anchor_paths(schema: type[BaseModel], values: dict[str, Any], folder: Path) -> None:
    for key, value in values.items():
        if not is_path_field(schema, key):
            continue
        if isinstance(value, str):
            values[key] = _anchor(value, folder)
        elif isinstance(value, list):
            values[key] = [_anchor(v, folder) if isinstance(v, str) else v for v in value]
        elif isinstance(value, dict):
            values[key] = {k: _anchor(v, folder) if isinstance(v, str) else v for k, v in value.items()}


def _anchor(text: str, folder: Path) -> str:
    if text.startswith(PACKAGE_PREFIX) or Path(text).expanduser().is_absolute():
        return str(Path(text).expanduser()) if not text.startswith(PACKAGE_PREFIX) else text
    return str(folder.resolve() / text)


def _put(target: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = target.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UsageError(f"--set {'.'.join(path)}: '{part}' already has a plain value", fix="give the group or the value, not both")
        target = inner
    target[path[-1]] = value


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, schema: type[BaseModel], path: Path | None, lines: dict[str, int]) -> ConfigError:
    first = error.errors(include_url=False)[0]
    parts = [str(p) for p in first["loc"]]
    key = ".".join(parts)
    place = f"{path}:{lines[key]}: " if path and key in lines else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(schema, parts[:-1])
        prefix = ".".join(parts[:-1])
        what = unknown_name("key" + (f" in '{prefix}'" if prefix else ""), parts[-1], known)
        return ConfigError(place + what, fix="correct or remove that key")
    if first["type"] == "missing":
        return ConfigError(f"{f'{path}: ' if path else ''}key '{key}' is missing", fix=f"add it to the YAML or give --set {key}=...")
    message = str(first["msg"]).removeprefix("Value error, ")
    value = repr(first.get("input"))
    shown = value if len(value) <= 80 else value[:77] + "..."
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return ConfigError(f"{place}{key or 'config'} = {shown}: {message}{more}", fix="correct that value")


def _keys_at(schema: type[BaseModel], parts: list[str]) -> list[str]:
    model: Any = schema
    for part in parts:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    return list(model.model_fields) if hasattr(model, "model_fields") else []
