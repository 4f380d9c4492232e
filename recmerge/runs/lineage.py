"""From a run back to everything it was made from, by the inputs its manifest records."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recmerge.names import expand_path
from recmerge.runs.manifest import read_manifest, sha256_file
from recmerge.runs.resolve import Found
from recmerge.runs.workspace import Workspace


@dataclass(frozen=True)
class Node:
    """A run or plain file in a lineage.

    Args:
        id: Its path, as the manifests record it: relative where it lies in the workspace.
        stage: A key of `names.STAGE_DIRS`; "file" for a plain file.
        name: The run's or file's name.
        version: The run's version; empty for a file.
        state: ok, missing (it is gone), or changed (it is not what was used then).
    """

    id: str
    stage: str
    name: str
    version: str
    state: str

    @property
    def label(self) -> str:
        """One line that names it, with its state where that is not ok."""
        text = f"{self.stage}/{self.name}@{self.version}" if self.version else f"{self.stage} {self.id}"
        return text if self.state == "ok" else f"{text} ({self.state})"


@dataclass(frozen=True)
class Edge:
    """`source` went into `target` in a role such as "data" or "adapter-2"; both are node ids."""

    source: str
    target: str
    role: str


@dataclass(frozen=True)
class Lineage:
    """All nodes and edges behind some runs; every node stands once, inputs before what was made from them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def inputs_of(self, node_id: str) -> list[tuple[str, Node]]:
        """Return (role, node) of everything that went directly into a node."""
        by_id = {n.id: n for n in self.nodes}
        return [(e.role, by_id[e.source]) for e in self.edges if e.target == node_id]


def trace(workspace: Workspace, runs: Sequence[Found]) -> Lineage:
    """Walk from runs back to their data and files.

    Args:
        workspace: Where recorded relative paths start.
        runs: The runs to start from.

    Returns:
        Their common lineage; an input that is gone or was replaced is a node in that state, and the walk stops there.
    """
    nodes: dict[str, Node] = {}
    edges: dict[Edge, None] = {}
    for found in runs:
        m = found.manifest
        root = Node(workspace.relative(found.path), m.stage, m.name, m.version, "ok")
        _visit(workspace, root, m.inputs, nodes, edges)
    return Lineage(tuple(nodes.values()), tuple(edges))


def _visit(workspace: Workspace, node: Node, inputs: list[dict[str, str]], nodes: dict[str, Node], edges: dict[Edge, None]) -> None:
    if node.id in nodes:
        return
    for item in inputs:
        child, behind = _input_node(workspace, item)
        edges[Edge(child.id, node.id, item["role"])] = None
        _visit(workspace, child, behind, nodes, edges)
    nodes[node.id] = node  # after its inputs, so that the order is that of the work


def _input_node(workspace: Workspace, item: dict[str, str]) -> tuple[Node, list[dict[str, str]]]:
    path = workspace.root / expand_path(item["path"])
    if not item.get("version"):
        state = "ok" if not path.is_file() or sha256_file(path) == item["content_sha256"] else "changed"
        return Node(item["path"], "file", item["name"], "", state if path.exists() else "missing"), []
    manifest = read_manifest(path)
    if manifest is None:
        stage = Path(item["path"]).parent.parent.name or "run"
        return Node(item["path"], stage, item["name"], item["version"], "missing"), []
    state = "ok" if manifest.content_sha256 == item["content_sha256"] else "changed"
    return Node(item["path"], manifest.stage, manifest.name, manifest.version, state), manifest.inputs


def tree_lines(lineage: Lineage, root: str) -> list[str]:
    """Draw what a node was made from as an indented tree.

    Args:
        lineage: What `trace` returned.
        root: The id of the node at the top.

    Returns:
        One line per node; what stands behind a node that came up before is not repeated.
    """
    by_id = {n.id: n for n in lineage.nodes}
    lines = [by_id[root].label]
    _draw(lineage, root, "", lines, {root})
    return lines


def _draw(lineage: Lineage, node_id: str, indent: str, lines: list[str], seen: set[str]) -> None:
    children = lineage.inputs_of(node_id)
    for i, (role, child) in enumerate(children):
        last = i == len(children) - 1
        behind = bool(lineage.inputs_of(child.id))
        repeat = " (as above)" if child.id in seen and behind else ""
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{role}: {child.label}{repeat}")
        if child.id not in seen:
            seen.add(child.id)
            _draw(lineage, child.id, indent + ("   " if last else "│  "), lines, seen)
