from recmerge.evaluation.report.provenance import lineage_section
from recmerge.runs.lineage import Edge, Lineage, Node


def test_columns_follow_the_work() -> None:
    nodes = (
        Node("t.csv", "file", "t.csv", "", "ok"),
        Node("d", "build", "sports", "v001", "ok"),
        Node("a", "train", "sports", "v001", "missing"),
        Node("m1", "merge", "one", "v001", "ok"),
        Node("m2", "merge", "two", "v001", "ok"),
        Node("i", "infer", "ranking", "v001", "ok"),
    )
    edges = (
        Edge("t.csv", "d", "items"),
        Edge("d", "a", "data"),
        Edge("a", "m1", "x"),
        Edge("m1", "m2", "x"),
        Edge("m2", "i", "adapter"),
        Edge("d", "i", "data"),
    )
    section = lineage_section(Lineage(nodes, edges), "result")
    # A merge of a merge stands right of it and moves the ranking on; raw tables are not drawn.
    assert {n.id: n.column for n in section.nodes} == {"d": 0, "a": 2, "m1": 3, "m2": 4, "i": 5, "": 6}
    assert [n.detail for n in section.nodes if n.id == "a"] == ["v001 missing"]
    assert ("i", "") in section.edges
    assert "svg" in section.svg


def test_without_result() -> None:
    section = lineage_section(Lineage((Node("d", "build", "sports", "v001", "ok"),), ()))
    assert [n.id for n in section.nodes] == ["d"]
    assert section.columns == ["data"]
