"""The page of what Run loads: each package, its version, its licence with the text, and where its source is."""

import html
import json
import shutil
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from lab.paths import ROOT

from .online import PACK, published
from .proof import Stop

# Texts that a package needs and does not bring along.
_LICENCES = ROOT / "docs" / "_online" / "licences"
_LIVE = ROOT / "docs" / "_live"
# What is no package of Python: its version or its file in vendored.toml, its licence with the text, its source.
_OTHERS = {
    "Pyodide": ("314.0.7", "MPL-2.0", _LICENCES / "MPL-2.0.txt", "https://github.com/pyodide/pyodide"),
    "CPython": ("3.14.2", "PSF-2.0", _LICENCES / "PSF-2.0.txt", "https://github.com/python/cpython"),
    "CodeJar": ("codejar.js", "MIT", _LIVE / "codejar.LICENSE", "https://github.com/antonmedv/codejar"),
    "Prism": ("prism-core.js", "MIT", _LIVE / "prism.LICENSE", "https://github.com/PrismJS/prism"),
}
_COLUMNS = ("Package", "Version", "Licence", "Source")
_ROW = (
    "<tr><th scope=row>{name}</th>"
    "<td><span class=label>Version: </span>{version}</td>"
    '<td><span class=label>Licence: </span><a href="_static/licences/{name}.txt">{licence}</a></td>'
    '<td><span class=label>Source: </span><a href="{source}">{source}</a></td></tr>'
)


class Shipped(nodes.General, nodes.Element):
    """Stands for the table."""


class ShippedDirective(SphinxDirective):
    """`{shipped}`: a table of all packages that Run loads."""

    def run(self) -> list[nodes.Node]:
        """Place it."""
        return [Shipped()]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the table, and the texts beside the pages."""
    app.add_directive("shipped", ShippedDirective)
    app.add_node(Shipped, html=(_visit, None))
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


@cache
def shipped() -> dict[str, dict[str, Any]]:
    """Return what the site ships for Run; the build stops where a licence's text is missing."""
    found: dict[str, dict[str, Any]] = {}
    vendored = tomllib.loads((_LIVE / "vendored.toml").read_text())
    for name, (told, licence, text, source) in _OTHERS.items():
        version = vendored[told]["version"] if told in vendored else told
        found[name] = {"version": version, "licence": licence, "source": source, "texts": {"": text.read_text()}}
    for name, entry in json.loads((PACK / "shipped.json").read_text()).items():
        if not entry["texts"] and (_LICENCES / f"{name}.txt").exists():
            entry["texts"] = {name: (_LICENCES / f"{name}.txt").read_text()}
        found[name] = entry
    without = [name for name, entry in found.items() if not entry["texts"] or not entry["source"]]
    if without:
        raise Stop(
            f"The site may not ship {', '.join(without)}: no licence text or no place of the source is known. "
            "Put the text into docs/_online/licences/NAME.txt, or build with nox -s docs -- -t prose."
        )
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def _visit(self: Any, _node: Shipped) -> None:
    if published(self.builder.app):
        head = "".join(f"<th scope=col>{word}</th>" for word in _COLUMNS)
        rows = "".join(_row(name, entry) for name, entry in shipped().items())
        self.body.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>\n")
    else:
        self.body.append("<p>This build of the site ships none of it: its calls have no Run.</p>\n")
    raise nodes.SkipNode


def _row(name: str, entry: dict[str, Any]) -> str:
    words = {"name": name, "licence": entry["licence"] or "text", **{key: entry[key] for key in ("version", "source")}}
    return _ROW.format_map({key: html.escape(word) for key, word in words.items()})


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the licences' texts; remove those that an earlier build has left."""
    if error or app.builder.name != "html":
        return
    folder = Path(app.outdir) / "_static" / "licences"
    shutil.rmtree(folder, ignore_errors=True)
    if published(app):
        folder.mkdir()
        for name, entry in shipped().items():
            (folder / f"{name}.txt").write_text("\n\n".join(entry["texts"].values()))
