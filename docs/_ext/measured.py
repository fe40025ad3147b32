"""The directive `{measured}`: every statement of the original FAQ, what became of it, and the claims that say so."""

import html
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from lab.paths import chapters

from . import source
from .proof import NOT_YET, Evidence, recorded

VERDICTS = {"holds": "holds", "holds with limits": "limits", "does not hold": "fails"}


class Statement(nodes.General, nodes.Element):
    """One statement. Attributes: `chapter`, `number` in its file, `says`, `verdict`, `claims` (keys), `instead`."""

    def problem(self, evidence: Evidence) -> str:
        """Return why the verdict may not be given, and the remedy."""
        place = f"docs/measured/{self['chapter']}.toml, statement {self['number']}"
        if self["verdict"] not in VERDICTS:
            return f"{place}: the verdict {self['verdict']!r} is none of {', '.join(VERDICTS)}. Choose one of them."
        if not self["claims"]:
            return f"{place}: no claim proves it. Name the tests that settle it under `claims`."
        found = [problem for key in self["claims"] if (problem := evidence.claim_problem(key))]
        return f"{place}: {found[0]}" if found else ""


class Measured(SphinxDirective):
    """Reads the statements of all chapters, in reading order."""

    def run(self) -> list[nodes.Node]:
        """Make a node for each statement."""
        found: list[nodes.Node] = []
        folder = Path(self.env.srcdir) / "measured"
        for chapter in chapters():
            path = folder / f"{chapter}.toml"
            if not path.exists():
                continue
            self.env.note_dependency(self.env.relfn2path(f"/measured/{path.name}")[0])
            for number, entry in enumerate(tomllib.loads(path.read_text()).get("statement", []), 1):
                keys = [name if "/" in name else f"{chapter}/{name}" for name in entry.get("claims", [])]
                node = Statement(
                    chapter=chapter,
                    number=number,
                    says=entry["says"],
                    verdict=entry["verdict"],
                    claims=keys,
                    instead=entry.get("instead", ""),
                )
                node.line = self.lineno
                found.append(node)
        return found


class Table(SphinxPostTransform):
    """Makes one table of the statements."""

    default_priority = 402
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Replace the first statement by the table and drop the others."""
        statements = list(self.document.findall(Statement))
        if not statements:
            return
        evidence = recorded()
        rows = []
        for chapter in chapters():
            group = [node for node in statements if node["chapter"] == chapter]
            if not group:
                continue
            title = self.env.titles.get(chapter)
            name = title.astext() if title else chapter
            uri = self.app.builder.get_relative_uri(self.env.docname, chapter)
            rows.append(
                f'<tr class="chapter"><th colspan="4" scope="colgroup"><a href="{uri}">{html.escape(name)}</a>'
                "</th></tr>"
            )
            rows += [self._row(node, evidence) for node in group]
        head = "".join(f'<th scope="col">{name}</th>' for name in ("The original says", "Measured", "Proof", "Instead"))
        counts = [sum(node["verdict"] == verdict for node in statements) for verdict in VERDICTS]
        told = ("hold", "hold with limits", "do not hold")
        tally = ", ".join(f"{count} {verdict}" for count, verdict in zip(counts, told, strict=True))
        markup = (
            f'<p class="tally">{len(statements)} statements: {tally}.</p>'
            f'<table class="measured"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        )
        statements[0].replace_self(nodes.raw("", markup, format="html"))
        for node in statements[1:]:
            node.parent.remove(node)

    def _row(self, node: Statement, evidence: Evidence) -> str:
        links = []
        proven = not node.problem(evidence)
        for key in node["claims"] if proven else ():
            claim = evidence.claims[key]
            link = html.escape(source.link(self.app.builder, self.env.docname, claim))
            links.append(f'<li><a href="{link}">{source.prose(claim.sentence)}</a></li>')
        summary = f"{len(links)} claim{'s' if len(links) > 1 else ''}"
        proofs = f"<details><summary>{summary}</summary><ul>{''.join(links)}</ul></details>" if proven else NOT_YET
        mark = VERDICTS[node["verdict"]]
        return (
            f"<tr><td>{source.prose(node['says'])}</td>"
            f'<td data-label="Measured"><span class="verdict {mark}">{node["verdict"]}</span></td>'
            f"<td>{proofs}</td>"
            f'<td data-label="Instead">{source.prose(node["instead"]) or "–"}</td></tr>'
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_node(Statement)
    app.add_directive("measured", Measured)
    app.add_post_transform(Table)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
