"""`recmerge doctor`: what this machine has, and what is missing for what."""

from typing import Any

from recmerge.cli.apps import app
from recmerge.cli.console import emit, emit_json
from recmerge.cli.options import Common, command
from recmerge.errors import printable

_GIB = 1024**3


@command(app, "doctor", run=False, config=False)
def doctor(common: Common) -> None:
    """Show versions, device, threads, memory, disk, caches, and what is missing for what."""
    from recmerge.stages.doctor import examine

    facts = examine(common.workspace)
    if common.as_json:
        emit_json(facts)
        return
    lines = _lines(facts)
    width = max(len(name) for name, _ in lines)
    emit("\n".join(f"{name.ljust(width)}  {printable(text)}" for name, text in lines))
    for row in facts["missing"]:
        emit(printable(f"missing: {row['what']} - needed for {row['needed_for']}; {row['fix']}"))
    common.reporter.say("next: recmerge demo")


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    device, memory, disk = facts["device"], facts["memory"], facts["workspace"]
    gpus = ", ".join(f"{g['name']} ({g['memory_bytes'] / _GIB:.0f} GB)" for g in device["gpus"]) or "no GPU"
    available = f"{memory['available_bytes'] / _GIB:.1f} of " if memory["available_bytes"] is not None else ""
    return [
        ("recmerge", facts["recmerge"]),
        ("python", f"{facts['python']} on {facts['system']}"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in facts["packages"].items())),
        ("device", f"{device['kind'] or 'no torch'}, {gpus}, {device['cpus']} cores, {device['threads']} torch threads"),
        ("memory", f"{available}{memory['total_bytes'] / _GIB:.1f} GB free"),
        ("workspace", f"{disk['path']}, {disk['free_bytes'] / _GIB:.1f} GB free{'' if disk['writable'] else ', NOT writable'}"),
        ("cache", facts["caches"]["recmerge"]),
        ("models", facts["caches"]["hugging_face"]),
        ("bundled", ", ".join(f"{name}: {'yes' if there else 'MISSING'}" for name, there in facts["bundled"].items())),
    ]
