"""One self-contained HTML page of text, tables and charts."""

from recmerge.evaluation.report.charts import Bar, Line, Reference
from recmerge.evaluation.report.graph import Node
from recmerge.evaluation.report.page import BarChart, HeatMap, Lineage, LineChart, Note, Table, render_report

__all__ = ["Bar", "BarChart", "HeatMap", "Line", "LineChart", "Lineage", "Node", "Note", "Reference", "Table", "render_report"]
