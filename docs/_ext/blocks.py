"""The directives `{block}` and `{call}`: code from a file under `examples/`, shown, or shown and executed."""

import html
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralIncludeReader
from sphinx.util import parselinenos
from sphinx.util.docutils import SphinxDirective

from lab.paths import EXAMPLES

from . import source
from .jupyter import CellOutputNode, ExecuteJupyterCells, JupyterCell
from .kept import KERNEL
from .proof import NOT_YET, Claim, Evidence, Lines, Stop, recorded

# More lines of output than these are folded.
_LONG = 16
_LANGUAGES = {".py": "python", ".html": "html+django", ".toml": "toml", ".conf": "ini", ".sh": "bash", ".txt": "text"}


class Block(nodes.General, nodes.Element):
    """A piece of code on a page. Attributes: `file`, `lines`, `text`, `language`, `names`, `called`."""

    @property
    def shown(self) -> Lines:
        """The lines that the block shows."""
        return Lines(self["file"], tuple(self["lines"]))

    def problem(self, evidence: Evidence) -> str:
        """Return why the block may not be shown, and the remedy."""
        problem = self.shown.cut_problem() or evidence.block_problem(self.shown)
        if not problem and not self["called"] and self.shown.path.name.startswith("demo"):
            problem = evidence.output_problem(self.shown, self["output"])
        return problem

    def printed(self, evidence: Evidence) -> str:
        """Return what the calls that are shown printed, if the page says so."""
        if self["called"]:
            (output,) = self.findall(CellOutputNode)
            return "\n".join(literal.astext().rstrip() for literal in output.findall(nodes.literal_block))
        return evidence.output(self.shown, self["output"]) if self["output"] else ""


def block_of(
    path: Path, text: str, lines: list[int], *, called: bool = False, part: str = "", output: str = ""
) -> Block:
    """Return the block that shows `lines` of a file, whose `text` they are."""
    language = _LANGUAGES.get(path.suffix, "text")
    file = path.relative_to(EXAMPLES.parent).as_posix()
    literal = nodes.literal_block(text, text, language=language)
    given = {"lines": lines, "text": text, "called": called, "part": part, "output": output}
    block: Block = Block("", literal, file=file, language=language, **given)
    return block


def setup(app: Sphinx) -> dict[str, bool]:
    """Register directives, the executing transform, and what shows a block with its evidence."""
    app.setup_extension("_ext.jupyter")
    app.setup_extension("_ext.kept")
    app.add_transform(ExecuteCalls)
    app.add_node(Block, html=(_visit_block, _depart_block))
    app.add_directive("block", BlockDirective)
    app.add_directive("call", CallDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class _Shows(SphinxDirective):
    """What the two directives share: the file, where it is, and where the directive stands."""

    def file(self) -> Path:
        """Return the file that the argument names; an error with page, line and remedy if there is none."""
        path: Path = EXAMPLES / self.arguments[0]
        if not path.is_file() or not path.resolve().is_relative_to(EXAMPLES):
            raise self.error(
                f"there is no file examples/{self.arguments[0]}. Name an existing one by its path from examples/, "
                "for example chains/tasks.py."
            )
        self.env.note_dependency(path)
        return path

    def marked(self, text: str) -> list[int]:
        """Return which lines of `text` matter, counted from 1: those that hold what the option `mark` says."""
        mark = self.options.get("mark")
        found = [place for place, line in enumerate(text.splitlines(), 1) if mark and mark in line]
        if mark and not found:
            raise self.error(f"no line that is shown of {self.arguments[0]} holds {mark!r}. Mark a text that one does.")
        return found

    def placed(self, node: Block) -> Block:
        """Return the block with its line and its number on the page."""
        node.line = self.lineno
        count = int(self.env.temp_data.get("blocks") or 0) + 1
        self.env.temp_data["blocks"] = count
        node["ids"] = [f"block-{count}"]
        return node


class BlockDirective(_Shows):
    """`{block} chains/tasks.py`: the file, or with `:pyobject:` or `:lines:` a part of it.

    `:mark:` is a text; the lines that hold it are the ones that matter. `:output:` names the claim whose run of a file
    of calls is shown.
    """

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = dict.fromkeys(
        ("pyobject", "lines", "mark", "output"), directives.unchanged_required
    )

    def run(self) -> list[nodes.Node]:
        """Read the lines."""
        path = self.file()
        options: dict[str, Any] = dict(self.options)
        output = options.pop("output", "")
        options.pop("mark", "")
        if "pyobject" in options:
            options["lineno-match"] = True
        reader = LiteralIncludeReader(str(path), options, self.config)
        try:
            text, count = reader.read(self.state_machine.get_source_and_line(self.lineno))
        except ValueError as error:
            raise self.error(f"{error}. Name a function, a class or lines that {self.arguments[0]} has.") from None
        if "pyobject" in options:
            lines = list(range(reader.lineno_start, reader.lineno_start + count))
        elif "lines" in options:
            lines = [line + 1 for line in parselinenos(options["lines"], len(path.read_text().splitlines()))]
        else:
            lines = list(range(1, count + 1))
        node = self.placed(block_of(path, text, lines, part=options.get("pyobject", ""), output=output))
        node[0]["highlight_args"] = {"hl_lines": self.marked(text)}
        return [node]


class CallDirective(_Shows, JupyterCell):
    """`{call} chains/demo.py`: the file as a cell, executed while the page is read, with what came of it.

    `:mark:` is a text; the lines that hold it are the ones that matter.
    """

    required_arguments = 1
    optional_arguments = 0
    has_content = False
    option_spec: ClassVar[dict[str, Any]] = {"mark": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Make the cell, which `ExecuteCalls` executes later."""
        path = self.file()
        # What the call prints depends on the tasks it calls and on the kernel.
        others = [file for file in path.parent.glob("*.py") if not file.name.startswith("test_")]
        for other in (*others, *KERNEL):
            self.env.note_dependency(other)
        self.arguments = [f"/../{path.relative_to(EXAMPLES.parent).as_posix()}"]
        text = path.read_text()
        node = self.placed(block_of(path, text, list(range(1, len(text.splitlines()) + 1)), called=True))
        self.options["emphasize-lines"] = ",".join(map(str, self.marked(text)))
        (cell,) = super().run()
        # Whatever a cell raises or prints on stderr comes back as output; ExecuteCalls judges it by page and line.
        cell["raises"], cell["stderr"] = [], True
        node[:] = [cell]
        return [node]


class ExecuteCalls(ExecuteJupyterCells):
    """jupyter-sphinx's execution, with errors that name page, line and remedy."""

    def apply(self) -> None:
        """Execute the page's cells; stop the build where one failed."""
        calls = [node for node in self.document.findall(Block) if node["called"]]
        page = Path(self.env.doc2path(self.env.docname)).relative_to(Path(self.env.srcdir).parent)
        try:
            super().apply()
        except Exception as error:
            cause = getattr(error, "orig_exc", None) or error
            line = calls[0].line if calls else 1
            raise Stop(
                f"{page}:{line}: the calls of this page could not be executed ({type(cause).__name__}: {cause}). "
                "Run nox -s examples to see whether the lab starts here."
            ) from None
        wrong = [problem for call in calls if (problem := self._judge(call, page))]
        if wrong:
            raise Stop("\n\n".join(wrong))

    def _judge(self, call: Block, page: Path) -> str:
        """Return what went wrong with a call, and the remedy; empty if nothing did."""
        (output,) = call.findall(CellOutputNode)
        for literal in output.findall(nodes.literal_block):
            if "traceback" in literal["classes"] or "stderr" in literal["classes"]:
                what = "raised" if "traceback" in literal["classes"] else "wrote to stderr"
                return (
                    f"{page}:{call.line}: the call {call['file']} {what}:\n{literal.astext().strip()}\n"
                    f"Mend {call['file']}, or catch and print there what a reader is meant to see; "
                    f"nox -s examples -- {call.shown.chapter} runs it too."
                )
        if not output.astext().strip():
            output += nodes.literal_block("", "(no output)", language="none", classes=["output", "stream"])
        return ""


def _recorded(text: str) -> str:
    """Return what the claim's own run printed; what is long is folded."""
    printed = f"<pre>{html.escape(text)}</pre>"
    count = len(text.splitlines())
    if count > _LONG:
        printed = f"<details><summary>{count} lines of output</summary>{printed}</details>"
    return f'<div class="recorded">{printed}</div>'


def evidence_line(evidence: Evidence, shown: Lines, link: Callable[[Claim], str]) -> str:
    """Return the quiet line under a block, which opens to the claims."""
    claims = evidence.proofs(shown)
    plural = "" if len(claims) == 1 else "s"
    items = "".join(f"<li>{_claim(claim, link(claim))}</li>" for claim in claims)
    return f'<details class="evidence"><summary>{len(claims)} claim{plural}</summary><ul>{items}</ul></details>'


def _claim(claim: Claim, link: str) -> str:
    took = f'<span class="took">{claim.seconds:.2f} s</span>'
    return f'<a href="{html.escape(link)}">{source.prose(claim.sentence)}</a> {took}'


def _visit_block(self: Any, node: Block) -> None:
    part = f' <span class="part">{html.escape(node["part"])}</span>' if node["part"] else ""
    kind = "called" if node["called"] else "shown"
    online = f' data-online="{node["online"]}"' if node.get("online") else ""
    self.body.append(
        f'<figure class="block {kind}" id="{node["ids"][0]}" data-file="{html.escape(node["file"])}"{online}>'
        f"<figcaption><code>{html.escape(node.shown.short)}</code>{part}</figcaption>"
    )


def _depart_block(self: Any, node: Block) -> None:
    # What is written here, and is no part of the page's text, the search index passes over.
    line = f'<p class="evidence">{NOT_YET}.</p>'
    if not node.problem(recorded()):
        if node["output"]:
            self.body.append(_recorded(node.printed(recorded())))
        link = partial(source.link, self.builder, self.builder.current_docname)
        line = evidence_line(recorded(), node.shown, link)
    if node.get("refused"):
        self.body.append(f'<p class="online-bar">No Run in your browser: {html.escape(node["refused"])}.</p>')
    self.body.append(f"{line}</figure>\n")
