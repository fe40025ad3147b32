"""Code in few colours: a token that has no colour of its own gets no markup, which is half of a page's."""

from collections.abc import Iterable
from typing import Any, TextIO

from pygments.formatters import HtmlFormatter
from pygments.token import Comment, Keyword, Name, Number, Operator, String, Text, _TokenType
from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge

# The first that a token is one of decides; site.css has a colour for each of the six.
_COLOURS = (
    (Keyword, (Operator.Word, Name.Exception)),
    (Number, (Keyword.Type, Name.Builtin, Name.Decorator, Name.Attribute, Name.Variable.Magic, Number)),
    (Keyword, (Keyword,)),
    (Name.Function, (Name.Function, Name.Class, Name.Constant, Name.Tag, Name.Property)),
    (Name.Variable, (Name.Variable,)),
    (String, (String, Operator)),
    (Comment, (Comment,)),
)


def _coarse(token: _TokenType) -> _TokenType:
    for colour, tokens in _COLOURS:
        if any(token in wide for wide in tokens):
            return colour
    return Text


class FewColours(HtmlFormatter):
    """Pygments' formatter, with six kinds of tokens instead of its eighty."""

    def format_unencoded(self, tokensource: Iterable[tuple[_TokenType, str]], outfile: TextIO) -> None:
        """Write the tokens."""
        super().format_unencoded(((_coarse(token), text) for token, text in tokensource), outfile)


def setup(app: Sphinx) -> dict[str, Any]:
    """Have Sphinx format code with it."""
    PygmentsBridge.html_formatter = FewColours
    return {"parallel_read_safe": True, "parallel_write_safe": True}
