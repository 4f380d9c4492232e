"""From recorded inputs to the graph of what a result was made from."""

from recmerge.evaluation.report.graph import Node
from recmerge.evaluation.report.page import Lineage
from recmerge.runs import lineage as recorded

# The column a stage stands in at the earliest, and what heads it.
_STAGES = {
    "build": (0, "data"),
    "mix": (1, "mixed data"),
    "base": (1, "base model"),
    "file": (1, "file"),
    "train": (2, "training"),
    "merge": (3, "merging"),
    "infer": (4, "ranking"),
    "eval": (5, "evaluation"),
}
_RAW = {"build", "base"}  # stages whose files are raw tables: too many to draw


def lineage_section(lineage: recorded.Lineage, result: str = "", title: str = "From what this came") -> Lineage:
    """Lay out a lineage as columns of boxes.

    Args:
        lineage: From `runs.lineage.trace`.
        result: A last box for the page's own evaluation, to which every run leads that nothing else was made from; empty: none.
        title: The section's heading.

    Returns:
        The section; raw tables are left out, and what is gone or was replaced since says so.
    """
    stages = {node.id: node.stage for node in lineage.nodes}
    raw = {edge.source for edge in lineage.edges if stages[edge.source] == "file" and stages[edge.target] in _RAW}
    kept = [node for node in lineage.nodes if node.id not in raw]
    edges = [(edge.source, edge.target) for edge in lineage.edges if edge.source not in raw]
    columns: dict[str, int] = {}
    for node in kept:  # inputs stand before what was made from them
        right_of = [columns[source] + 1 for source, target in edges if target == node.id]
        columns[node.id] = max([_STAGES.get(node.stage, (0, ""))[0], *right_of])
    nodes = [Node(node.id, node.name, node.version if node.state == "ok" else f"{node.version} {node.state}".strip(), columns[node.id]) for node in kept]
    last = max(columns.values(), default=-1) + 1
    headings = [" / ".join(dict.fromkeys(_STAGES.get(n.stage, (0, n.stage))[1] for n in kept if columns[n.id] == c)) for c in range(last)]
    if result:
        sources = {source for source, _ in edges}
        edges += [(node.id, "") for node in kept if node.id not in sources]
        nodes.append(Node("", result, "this page", last))
        headings.append("evaluation")
    return Lineage(title, nodes, edges, headings, "An arrow leads from what was used to what was made from it.")
