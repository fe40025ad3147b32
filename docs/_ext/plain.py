"""What our directives and roles say, as Markdown that any reader knows: claims as footnotes, verdicts as a table."""

import re
from collections.abc import Iterable

from sphinx.application import Sphinx

from .measured import Statement
from .proof import Evidence


def footnotes(app: Sphinx, docname: str, text: str, evidence: Evidence) -> str:
    """Return a page's source with a footnote for each claim: its sentence, and where its test stands."""
    numbers: dict[str, int] = {}

    def mark(found: re.Match[str]) -> str:
        key = found[1] if "/" in found[1] else f"{docname}/{found[1]}"
        return f"[^{numbers.setdefault(key, len(numbers) + 1)}]"

    text = re.sub(r"\s?\{claim\}`([^`]*)`", mark, text)
    return text + _definitions(app, numbers, evidence)


def _definitions(app: Sphinx, numbers: dict[str, int], evidence: Evidence) -> str:
    lines = []
    for key, number in numbers.items():
        chapter, _, test = key.partition("/")
        address = f"{app.config.html_baseurl}proof/{chapter}.html#{test}"
        lines.append(f"[^{number}]: {evidence.claims[key].sentence} ([{test}]({address}))")
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def verdicts(app: Sphinx, statements: Iterable[Statement], evidence: Evidence) -> str:
    """Return the statements of the original and what became of them as a table, with the claims as footnotes."""
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, int] = {}
    for node in statements:
        marks = "".join(f"[^{numbers.setdefault(key, len(numbers) + 1)}]" for key in node["claims"])
        page = f"[{node['chapter']}]({node['chapter']}.md)"
        rows.append((page, node["says"], node["verdict"] + marks, node["instead"] or "–"))
    head = ("Page", "The original says", "Measured", "Instead")
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, ("---",) * 4, *rows)]
    return "\n".join(lines) + "\n" + _definitions(app, numbers, evidence)
