"""Run on published pages: which calls have it, what is published for it, and the page of what that is.

A call has Run where `docs/recorded/online.json` says that it was proven in a browser, of this very call, its tasks, the
engine and the locked versions. `-t prose` leaves all of it out.
"""

import gzip
import hashlib
import html
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from lab.paths import BUILD, EXAMPLES, ROOT

from .blocks import Block
from .proof import Stop

PROVEN = ROOT / "docs" / "recorded" / "online.json"
_PACK = BUILD / "online"
_LIVE = ("editor.js", "codejar.js", "prism-core.js", "prism-python.js", "live.css")
# Loaded by the page's scripts, in the order of the page's own asking; the rest lies beside them.
_KEPT = ("pyodide.asm.bin", "stdlib.bin", "project.bin")
_SCRIPTS = ("pyodide.js", "pyodide.asm.js", "clock.js", "worker.js", "browser.js", "lock.json", *_LIVE)
# What comes with Pyodide and has no metadata of its own.
_RUNTIME = {
    "Pyodide": ("314.0.7", "MPL-2.0", "https://github.com/pyodide/pyodide", "MPL-2.0.txt"),
    "CPython": ("3.14.2", "PSF-2.0", "https://github.com/python/cpython", "PSF-2.0.txt"),
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the page of what is shipped and, where there is something to ship, the rest."""
    app.add_directive("shipped", ShippedDirective)
    if published(app):
        app.add_post_transform(Offer)
        app.connect("html-page-context", link)
        app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def published(app: Sphinx) -> bool:
    """Whether this build has Run."""
    return not app.tags.has("live") and not app.tags.has("prose") and (_PACK / "shipped.json").exists()


def _digest(*paths: Path) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


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
def _recorded() -> dict[str, dict[str, str]]:
    calls: dict[str, dict[str, str]] = json.loads(PROVEN.read_text())["calls"] if PROVEN.exists() else {}
    return calls


def proven(call: str) -> bool:
    """Whether `call` was proven in a browser, as all of it is now."""
    return _recorded().get(call) == marks(call)


def manifest() -> dict[str, Any]:
    """Return the pack's version, the bytes that are told while it loads, and what a first click costs in megabytes."""
    files = [_PACK / name for name in _KEPT]
    scripts = [_script(name) for name in _SCRIPTS]
    first = sum(path.stat().st_size for path in files) + sum(len(gzip.compress(path.read_bytes())) for path in scripts)
    total = sum(path.stat().st_size for path in files)
    return {"version": _digest(*files, *scripts), "total": total, "megabytes": round(first / 1e6)}


def _script(name: str) -> Path:
    folder = ROOT / "docs" / "_live" if name in _LIVE else ROOT / "docs" / "_online"
    return folder / name if (folder / name).exists() else _PACK / name


class Offer(SphinxPostTransform):
    """Marks the blocks that a reader may edit and run."""

    default_priority = 401
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Mark the calls that were proven; where there is one, tasks too, so that they can be edited."""
        blocks = list(self.document.findall(Block))
        calls = [block for block in blocks if block["called"]]
        for block in calls:
            block["online"] = "yes" if proven(block.shown.short) else ""
        if any(block["online"] for block in calls):
            for block in blocks:
                if block["file"].endswith("/tasks.py"):
                    block["online"] = "tasks"


def link(app: Sphinx, _page: str, _template: str, _context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Give the page its script if it has a call that can be run."""
    if doctree is not None and any(block.get("online") == "yes" for block in doctree.findall(Block)):
        pack = manifest()
        words: dict[str, Any] = {
            "data-online": json.dumps({key: pack[key] for key in ("version", "total")}),
            "data-megabytes": str(pack["megabytes"]),
        }
        app.add_js_file("online.js", type="module", **words)


def write(app: Sphinx, error: Exception | None) -> None:
    """Lay what is loaded beside the pages, in a folder of its version, with the licences."""
    if error or app.builder.name != "html":
        return
    static = Path(app.outdir) / "_static"
    for old in static.glob("online-*"):
        shutil.rmtree(old)
    folder = static / f"online-{manifest()['version']}"
    (folder / "licences").mkdir(parents=True)
    for name in (*_KEPT, *_SCRIPTS):
        shutil.copyfile(_script(name) if name in _SCRIPTS else _PACK / name, folder / name)
    shutil.copyfile(ROOT / "docs" / "_online" / "online.js", static / "online.js")
    for name, entry in shipped().items():
        (folder / "licences" / f"{name}.txt").write_text("\n\n".join(entry["texts"].values()))


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """Return what the site ships for Run; the build stops where a licence's text is missing."""
    licences = ROOT / "docs" / "_online" / "licences"
    found: dict[str, dict[str, Any]] = {}
    for name, (version, licence, source, text) in _RUNTIME.items():
        texts = {text: (licences / text).read_text()}
        found[name] = {"version": version, "licence": licence, "source": source, "texts": texts}
    for name, entry in json.loads((_PACK / "shipped.json").read_text()).items():
        # Some wheels lack the text that their licence asks for: it stands here, under their name.
        if not entry["texts"] and (licences / f"{name}.txt").exists():
            entry["texts"] = {name: (licences / f"{name}.txt").read_text()}
        found[name] = entry
    without = [name for name, entry in found.items() if not entry["texts"] or not entry["source"]]
    if without:
        raise Stop(
            f"The site may not ship {', '.join(without)}: no licence text or no place of the source is known. "
            "Put the text into docs/_online/licences/NAME.txt, or build with nox -s docs -- -t prose."
        )
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


class ShippedDirective(SphinxDirective):
    """`{shipped}`: a table of all packages that Run loads."""

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        self.env.note_dependency(str(_PACK / "shipped.json"))
        if not published(self.env.app):
            return [nodes.paragraph("", "This build of the site ships none of it: its calls have no Run.")]
        folder = f"_static/online-{manifest()['version']}/licences"
        rows = "".join(
            f"<tr><th scope=row>{html.escape(name)}</th><td>{html.escape(entry['version'])}</td>"
            f'<td><a href="{folder}/{html.escape(name)}.txt">{html.escape(entry["licence"] or "text")}</a></td>'
            f'<td><a href="{html.escape(entry["source"])}">source</a></td></tr>'
            for name, entry in shipped().items()
        )
        head = "".join(f"<th scope=col>{word}</th>" for word in ("Package", "Version", "Licence", "Source"))
        return [nodes.raw("", f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>", format="html")]


def calls() -> list[str]:
    """Return the calls that pages show, by their paths from examples/."""
    pages = [path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))]
    return sorted({call for page in pages for call in re.findall(r"^```\{call\} (\S+)", page, re.M)})
