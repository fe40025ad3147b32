"""The directive `{load}`: what `nox -s load` recorded, as long as it was measured with what the project holds now."""

import json
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lab import load

_STALE = (
    "Not measured with this version: what the figures depend on has changed since. `nox -s load` measures it anew, on "
    "your machine too."
)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("load", LoadDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def told() -> str:
    """Return in Markdown what was recorded, or that nothing holds."""
    found: dict[str, Any] = json.loads(load.RECORD.read_text()) if load.RECORD.exists() else {}
    if found.get("marks") != load.marks():
        return _STALE
    first = found["rounds"][0]
    lines = ["| workers of Auth's | tasks | lost | doubled | time |", "|---|---|---|---|---|"]
    for one in found["rounds"]:
        share = "the measure" if one is first else f"{one['seconds'] / first['seconds']:.0%} of that"
        lines.append(f"| {one['workers']} | {found['tasks']:,} | {one['lost']} | {one['doubled']} | {share} |")
    versions, memory = found["versions"], first["memory"]
    links, chain, tasks = found["links"], found["moved"]["chain"], found["moved"]["tasks"]
    lines += [
        "",
        f"Measured on {found['recorded']} with Celery {versions['celery']}, Python {versions['python']} and "
        f"{versions['broker']}, all on one machine. A message that waits takes {first['bytes']:,} bytes of Redis' "
        f"memory. The worker took {memory['first']} MB before the tasks and {memory['last']} MB after them.",
        "",
        f"A chain of {links:,} links brought Redis {chain['bytes'] / tasks['bytes']:.0f} times the bytes of {links:,} "
        f"tasks, and the worker grew by {chain['megabytes']} MB for it, instead of {tasks['megabytes']} MB.",
    ]
    return "\n".join(lines)


class LoadDirective(SphinxDirective):
    """Puts the figures on the page."""

    def run(self) -> list[nodes.Node]:
        """Read them anew where the record, or what it depends on, changes."""
        for path in (load.RECORD, *load.decisive()):
            self.env.note_dependency(path)
        return self.parse_text_to_nodes(told())
