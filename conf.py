"""Sphinx's configuration; the pages stand in `docs/`.

`python -m sphinx -W --keep-going -b html -c . docs build/html`, which is what `nox -s docs` calls.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from lab.guard import Guard  # noqa: E402
from lab.pages import kernelspec  # noqa: E402
from lab.paths import BUILD  # noqa: E402

project = "Celery FAQ for Alliance Auth"
author = "the Celery FAQ’s authors"
project_copyright = "MIT licence"
language = "en"

extensions = [
    "myst_parser",
    "sphinx.ext.autosectionlabel",
    "_ext.blocks",
    "_ext.whole",
    "_ext.ran_on",
    "_ext.claims",
    "_ext.charts",
    "_ext.measured",
    "_ext.load",
    "_ext.differs",
    "_ext.guards",
    "_ext.source",
    "_ext.tables",
    "_ext.colours",
    "_ext.head",
    "_ext.links",
    "_ext.everything",
    "_ext.search",
    "_ext.machine",
    "_ext.online",
    "_ext.shipped",
    "_ext.unclaimed",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_ext", "differs", "measured", "recorded"]
templates_path = ["docs/_templates"]
smartquotes = False
nitpicky = True
myst_enable_extensions = ["deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 3
# Each section has a label, `page:Title`, so that other documentation can link to it with intersphinx.
autosectionlabel_prefix_document = True

# The kernel that executes the calls. It is known to this build alone.
_kernelspecs = BUILD / "kernelspecs"
kernelspec.write(_kernelspecs, "built")
os.environ["JUPYTER_PATH"] = os.pathsep.join([str(_kernelspecs), os.environ.get("JUPYTER_PATH", "")]).rstrip(os.pathsep)
# Nothing of the user's own Jupyter is written; the guard removes the folder when the build has ended.
os.environ["JUPYTER_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="celery-faq-")
Guard(Path(os.environ["JUPYTER_RUNTIME_DIR"]))
# Kernels end when the build does, however that ends.
os.environ.setdefault("LAB_PARENT", str(os.getpid()))
jupyter_execute_default_kernel = kernelspec.NAME
# The kernel itself has a deadline for each cell, which names the cell; this one is for a kernel that hangs.
jupyter_execute_kwargs = {
    "timeout": 180,
    "startup_timeout": 120,
    "kernel_manager_class": "lab.pages.sockets.BuildManager",
    "allow_errors": True,
    "coalesce_streams": True,
    "store_widget_state": False,
}

# Where the site is published and where its source is: from whoever builds it.
html_baseurl = next(
    (os.environ[name] for name in ("SITE_URL", "READTHEDOCS_CANONICAL_URL", "CI_PAGES_URL") if os.environ.get(name)), ""
)
html_baseurl = html_baseurl.rstrip("/") + "/" if html_baseurl else ""
_repository = next(
    (
        os.environ[name]
        for name in ("REPOSITORY_URL", "CI_PROJECT_URL", "READTHEDOCS_GIT_CLONE_URL")
        if os.environ.get(name)
    ),
    "",
)
html_context = {
    "repository": _repository.removesuffix(".git").rstrip("/"),
    "branch": os.environ.get("REPOSITORY_BRANCH") or os.environ.get("CI_DEFAULT_BRANCH") or "main",
}

# The pages' frame is docs/_templates/layout.html, their looks are site.css; Sphinx's own theme adds nothing.
html_theme = "basic"
html_title = project
html_static_path = ["docs/_static"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
if tags.has("live"):  # type: ignore[name-defined]  # noqa: F821
    # Pages of the live server: an editor in each block. A published page has no trace of it.
    html_static_path.append("docs/_live")
    html_css_files.append("live.css")
    html_js_files += [
        ("prism-core.js", {"defer": "defer", "data-manual": ""}),
        ("prism-python.js", {"defer": "defer"}),
        ("live.js", {"type": "module"}),
    ]
html_favicon = "docs/_static/icon.svg"
html_copy_source = False
html_use_index = False
html_show_sphinx = False
html_show_copyright = False
html_permalinks_icon = "#"


def setup(app: object) -> None:
    """Write the pages anew when what makes them has changed; Sphinx does not look at that."""
    made_with = (
        "docs/_ext/*.*",
        "docs/_templates/*.html",
        "docs/_static/*.*",
        "docs/_live/*.*",
        "docs/_online/*.*",
        "docs/recorded/online.json",
        "build/online/mark",
        "lab/figure.py",
    )
    files = sorted(path for pattern in made_with for path in ROOT.glob(pattern))
    mark = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    app.add_config_value("site_code", mark, "html")  # type: ignore[attr-defined]
