"""The search index of a build that wrote a few pages is the one that a build of all pages makes."""

from collections.abc import Iterable
from typing import Any

from sphinx.application import Sphinx


def forget(app: Sphinx) -> Iterable[tuple[str, dict[str, Any], str]]:
    """Drop the words that no page has any more; Sphinx keeps each of them with an empty list of pages."""
    indexer = getattr(app.builder, "indexer", None)
    if indexer is not None:
        for mapping in (indexer._mapping, indexer._title_mapping):
            for word in [word for word, pages in mapping.items() if not pages]:
                del mapping[word]
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("html-collect-pages", forget)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
