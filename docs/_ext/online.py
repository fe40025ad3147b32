"""Run on published pages: which calls have it, why others have not, and what is published for it.

A call has Run where `docs/recorded/online.json` says that it was proven in a browser, of this very call, its tasks, the
engine and the locked versions. `-t prose` leaves all of it out.
"""

import gzip
import hashlib
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from lab.paths import BUILD, EXAMPLES, ROOT

from .blocks import Block

PROVEN = ROOT / "docs" / "recorded" / "online.json"
PACK = BUILD / "online"
_LIVE = ("editor.js", "codejar.js", "prism-core.js", "prism-python.js", "live.css")
# What the reader is told the bytes of while it loads; the rest is small beside it.
_KEPT = ("pyodide.asm.bin", "stdlib.bin", "project.bin")
_SCRIPTS = ("pyodide.js", "pyodide.asm.js", "clock.js", "worker.js", "browser.js", "lock.json", *_LIVE)
_CALL = re.compile(r"^```\{(?:call|block)\} (\S+/demo\w*\.py)$", re.M)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register what gives pages Run, and what lays beside them what it loads."""
    if published(app):
        app.add_post_transform(Offer)
        # Late: other extensions add to a page's links too.
        app.connect("html-page-context", link, priority=950)
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def published(app: Sphinx) -> bool:
    """Whether this build has Run."""
    return not app.tags.has("live") and not app.tags.has("prose") and (PACK / "shipped.json").exists()


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def calls() -> list[str]:
    """Return the scripts of calls that pages show, by their paths from examples/."""
    pages = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    return sorted({call for page in pages for call in _CALL.findall(page)})


@cache
def marks(call: str) -> dict[str, str]:
    """Return the hashes of all that decides what `call`, a path from examples/, does in a browser."""
    chapter = (EXAMPLES / call).parent
    tasks = [path for path in sorted(chapter.rglob("*.py")) if not path.name.startswith(("test_", "demo"))]
    engine = sorted(path for path in (ROOT / "lab" / "pages" / "browser").rglob("*.*") if path.suffix in (".py", ".js"))
    return {
        "block": _digest(EXAMPLES / call),
        "tasks": _digest(*tasks),
        "engine": _digest(*engine, ROOT / "docs" / "_online" / "worker.js"),
        "lock": _digest(ROOT / "requirements.txt", ROOT / "requirements-online.txt"),
    }


@cache
def _recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PROVEN.read_text()) if PROVEN.exists() else {}
    return found


def refusal(call: str) -> str:
    """Return why `call` has no Run, in half a sentence; nothing where it was proven, as all of it is now."""
    if (proven := _recorded().get("calls", {}).get(call)) is not None:
        return "" if proven == marks(call) else _CHANGED
    return str(_recorded().get("refused", {}).get(call, _UNTRIED))


_CHANGED = "it has changed since it was last tried there"
_UNTRIED = "it was not tried there yet"


def outdated() -> list[str]:
    """Return the calls of which the record says nothing that holds for them as they are now."""
    return [call for call in calls() if refusal(call) in (_CHANGED, _UNTRIED)]


@cache
def manifest() -> dict[str, str]:
    """Return the pack's version, the bytes that are told while it loads, and what a first click costs in megabytes."""
    files = [PACK / name for name in _KEPT]
    scripts = [_script(name) for name in _SCRIPTS]
    total = sum(path.stat().st_size for path in files)
    first = total + sum(len(gzip.compress(path.read_bytes())) for path in scripts)
    return {"version": _digest(*files, *scripts), "total": str(total), "megabytes": str(round(first / 1e6))}


def _script(name: str) -> Path:
    folder = ROOT / "docs" / "_live" if name in _LIVE else ROOT / "docs" / "_online"
    return folder / name if (folder / name).exists() else PACK / name


class Offer(SphinxPostTransform):
    """Marks the blocks that a reader may edit and run, and notes of the others why not."""

    default_priority = 401
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Mark the calls that were proven; where there is one, tasks too, so that they can be edited."""
        blocks = list(self.document.findall(Block))
        for block in blocks:
            if block.shown.path.name.startswith("demo") and block["language"] == "python":
                block["refused"] = refusal(block.shown.short)
                block["online"] = "" if block["refused"] else "call"
        if _runs(self.document):
            for block in blocks:
                if block["file"].endswith("/tasks.py"):
                    block["online"] = "tasks"


def _runs(page: nodes.document) -> bool:
    return any(block.get("online") == "call" for block in page.findall(Block))


def link(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Give the page its script if it has a call that can be run, and the way to what that loads."""
    if doctree is not None and _runs(doctree):
        context["online"] = manifest()
        context["links"] = [*context.get("links", []), ("What Run loads", context["pathto"]("shipped"))]


def write(app: Sphinx, error: Exception | None) -> None:
    """Lay what is loaded beside the pages, in a folder of its version; remove what an earlier build has left."""
    if error or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    for old in static.glob("online-*"):
        shutil.rmtree(old)
    (static / "online.js").unlink(missing_ok=True)
    if not published(app):
        return
    folder = static / f"online-{manifest()['version']}"
    folder.mkdir(parents=True)
    for name in (*_KEPT, *_SCRIPTS):
        shutil.copyfile(_script(name), folder / name)
    shutil.copyfile(ROOT / "docs" / "_online" / "online.js", static / "online.js")
