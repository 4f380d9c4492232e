"""A YAML reader that refuses what could be silently wrong."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from recmerge.errors import ConfigError

_MAX_BYTES = 1_000_000


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2 scalars (so `1e-4` is a number and `no` a word); no aliases, no repeated keys, no tags."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key.value}' stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"),
    list("-+.0123456789"),
)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: _float(node.value))


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def parse_yaml(text: str, where: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Read one YAML mapping.

    Args:
        text: The YAML text.
        where: What to call it in errors, usually the file's path.

    Returns:
        The mapping, and the line of every dotted key.

    Raises:
        ConfigError: Not valid YAML, not a mapping, or it holds a repeated key, an alias or a tag.
    """
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"{where} has {len(text)} characters, at most {_MAX_BYTES} are read", fix="a settings file is small; is this the right file?")
    try:
        loader = _StrictLoader(text)
        node = loader.get_single_node()
        value = {} if node is None else loader.construct_document(node)
    except RecursionError:
        raise ConfigError(f"{where} is nested too deeply", fix="flatten it") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{place}: {problem}", fix="mend that line") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{where} holds a {type(value).__name__}, not `key: value` lines", fix="write `key: value` lines")
    return value, dict(_key_lines(node)) if node is not None else {}


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Read one YAML file.

    Args:
        path: The file, in UTF-8.

    Returns:
        The mapping, and the line of every dotted key; see `parse_yaml`.

    Raises:
        ConfigError: The file cannot be read or is not valid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}", fix="give the path of a YAML file in UTF-8") from error
    return parse_yaml(text, str(path))


def parse_scalar(text: str) -> Any:
    """Read the value of a `--set key=value` as YAML would."""
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError:
        return text


def _key_lines(node: yaml.Node, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            path = f"{prefix}{key.value}"
            yield path, key.start_mark.line + 1
            yield from _key_lines(value, path + ".")
