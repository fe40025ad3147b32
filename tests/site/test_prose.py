"""The pages' sentences are short enough to be read once. Counted in the built text, outside code and tables."""

import re
import tomllib
from html.parser import HTMLParser

import pytest

from lab.paths import BUILD, ROOT

HTML = BUILD / "html"
PAGES = sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
MOST = 30
_PARAGRAPHS = {"p", "dt", "dd", "li", "h1", "h2", "h3"}
# What is drawn or written by a program, and what a sentence is not made of.
_LEFT_OUT = {"figure", "table", "details", "sup", "small", "nav", "footer"}


class _Paragraphs(HTMLParser):
    """Collects the paragraphs of a page's text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.paragraphs: list[str] = []
        self._open: list[str] = []
        self._words = ""
        self.feed(text[text.index("<main") : text.index("</main>")])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _PARAGRAPHS:
            self._end()
        if tag in _LEFT_OUT:
            self._open.append(tag)
        if tag == "code" and not self._open:
            # A stop within code ends no sentence, and a call is one word.
            self._words += "\ue000"

    def handle_endtag(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self._end()
        if self._open and tag == self._open[-1]:
            self._open.pop()
        if tag == "code" and not self._open:
            self._words += "\ue001"

    def handle_data(self, data: str) -> None:
        if not self._open:
            self._words += data

    def _end(self) -> None:
        text = re.sub("\ue000[^\ue001]*\ue001", "code", self._words)
        self._words = ""
        self.paragraphs.append(text)


def _long(paragraphs: list[str]) -> list[str]:
    sentences = [found for text in paragraphs for found in re.split(r"(?<=[.!?])[)\"”]*\s+", text.strip())]
    return [sentence for sentence in sentences if len(sentence.split()) > MOST]


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_has_more_than_thirty_words(page: str) -> None:
    paragraphs = _Paragraphs((HTML / f"{page}.html").read_text()).paragraphs
    assert "".join(paragraphs)
    assert _long(paragraphs) == []


def test_no_verdict_on_the_original_has_a_sentence_of_more_than_thirty_words() -> None:
    files = sorted((ROOT / "docs" / "measured").glob("*.toml"))
    told = [entry for path in files for entry in tomllib.loads(path.read_text())["statement"]]
    assert _long([entry[name] for entry in told for name in ("says", "instead")]) == []
