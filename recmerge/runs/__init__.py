"""Versioned, content-addressed run directories: written once, manifest last."""

from recmerge.runs.directory import Run, find_done, open_run
from recmerge.runs.manifest import Input, Manifest, RunSpec
from recmerge.runs.reporter import Reporter, SilentReporter
from recmerge.runs.resolve import Found, list_runs, resolve
from recmerge.runs.workspace import Workspace, check_name

__all__ = [
    "Found",
    "Input",
    "Manifest",
    "Reporter",
    "Run",
    "RunSpec",
    "SilentReporter",
    "Workspace",
    "check_name",
    "find_done",
    "list_runs",
    "open_run",
    "resolve",
]
