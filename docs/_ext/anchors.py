"""The directive `{old-anchors}`: where each heading of the original, one-page FAQ is now.

Old deep links point at an anchor of one page. A list with those very anchors works without a script; site.js goes on
to the new place at once.
"""

import html
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

# Heading of the original, its anchors (two makers of anchors differ about a slash), and the page and anchor it has now.
HEADINGS = (
    ("Celery FAQ", ("celery-faq",), "index", ""),
    (
        "When should I use Celery in my app?",
        ("when-should-i-use-celery-in-my-app",),
        "when_to_use",
        "when-should-i-use-celery-in-my-app",
    ),
    ("Duration", ("duration",), "when_to_use", "duration"),
    ("Recurrence", ("recurrence",), "when_to_use", "recurrence"),
    ("What is a celery task?", ("what-is-a-celery-task",), "first_task", "what-is-a-celery-task"),
    (
        "How should I use Celery in my app?",
        ("how-should-i-use-celery-in-my-app",),
        "first_task",
        "how-should-i-use-celery-in-my-app",
    ),
    (
        "How should I use celery tasks in the UI?",
        ("how-should-i-use-celery-tasks-in-the-ui",),
        "user_interface",
        "how-should-i-use-celery-tasks-in-the-ui",
    ),
    ("Can I use long-running tasks?", ("can-i-use-long-running-tasks",), "chains", "can-i-use-long-running-tasks"),
    (
        "How can I define periodic tasks for my app?",
        ("how-can-i-define-periodic-tasks-for-my-app",),
        "periodic_tasks",
        "how-can-i-define-periodic-tasks-for-my-app",
    ),
    (
        "How can I use priorities for tasks?",
        ("how-can-i-use-priorities-for-tasks",),
        "priorities",
        "how-can-i-use-priorities-for-tasks",
    ),
    (
        "Rate-Limiting and Smoothing of Task Execution",
        ("rate-limiting-and-smoothing-of-task-execution",),
        "smoothing",
        "rate-limiting-and-smoothing-of-task-execution",
    ),
    ("Offset Crontabs", ("offset-crontabs",), "smoothing", "offset-crontabs"),
    ("Subset Tasks", ("subset-tasks",), "smoothing", "subset-tasks"),
    ("Celery ETA/Countdown", ("celery-eta-countdown", "celery-etacountdown"), "smoothing", "celery-eta-countdown"),
    ("Celery Rate Limits", ("celery-rate-limits",), "smoothing", "celery-rate-limits"),
    (
        "What special features should I be aware of?",
        ("what-special-features-should-i-be-aware-of",),
        "index",
        "what-special-features-should-i-be-aware-of",
    ),
    ("celery-once", ("celery-once",), "queue_once", "celery-once"),
    ("Task Priorities", ("task-priorities",), "priorities", "how-can-i-use-priorities-for-tasks"),
)


class OldAnchors(nodes.General, nodes.Element):
    """Stands for the list."""


class OldAnchorsDirective(SphinxDirective):
    """Puts the list on the page."""

    def run(self) -> list[nodes.Node]:
        """Make the node."""
        return [OldAnchors()]


class Links(SphinxPostTransform):
    """Makes the list, with the addresses relative to the page."""

    default_priority = 403
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Replace the node."""
        for node in list(self.document.findall(OldAnchors)):
            items = []
            for title, anchors, page, place in HEADINGS:
                uri = self.app.builder.get_relative_uri(self.env.docname, page) + (f"#{place}" if place else "")
                # The heading's own anchor is taken by the page's title.
                marks = "".join(f'<span id="{anchor}"></span>' for anchor in anchors if anchor != "celery-faq")
                items.append(f'<li>{marks}<a href="{uri}">{html.escape(title)}</a></li>')
            node.replace_self(nodes.raw("", f'<ul class="old-anchors">{"".join(items)}</ul>', format="html"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_node(OldAnchors)
    app.add_directive("old-anchors", OldAnchorsDirective)
    app.add_post_transform(Links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
