"""What a page costs over a host that compresses text, measured in a browser; no rule of its styles is spare."""

import gzip
from urllib.parse import urljoin, urlsplit

from playwright.sync_api import Browser, Page

from lab.paths import BUILD
from tests.site.conftest import HTML, PAGES

HTML_MOST = 32 * 1024
REST_MOST = 20 * 1024
# All pages on one, and the source of the tests; the page of results loads the search.
EXEMPT = ("everything.html", "proof/")
# Rules for what no page shows until something is done or chosen, or that only old or small browsers ask for.
STATES: tuple[str, ...] = (
    ":hover",
    ":focus",
    ":target",
    ":popover-open",
    ".copy",
    ".found",
    "data-mode",
    ".hidden",
    "::placeholder",
)
# What depends on the data: a label that a phone has no room for, a line that a block points out.
STATES += (".desk", ".hll", ".online-bar")


def _size(path: str) -> int:
    body = (HTML / path).read_bytes()
    return min(len(body), len(gzip.compress(body)))


def test_a_page_weighs_at_most_32_kb_and_all_else_it_loads_20(site: str, browser: Browser) -> None:
    """The table of all pages goes to build/weight.txt."""
    table, heavy = [f"{'page':32}{'HTML':>8}{'other':>8}{'all':>8}{'requests':>10}"], []
    for name in PAGES:
        context = browser.new_context()
        page = context.new_page()
        page.goto(urljoin(site, name), wait_until="networkidle")
        entries = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
        asked = {urlsplit(url).path.lstrip("/") for url in entries}
        context.close()
        html, rest = _size(name), sum(_size(path) for path in asked if path != name and (HTML / path).is_file())
        table.append(f"{name:32}{html:8,}{rest:8,}{html + rest:8,}{len(asked):10}")
        if (html > HTML_MOST and not name.startswith(EXEMPT)) or (rest > REST_MOST and name != "search.html"):
            heavy.append(table[-1])
    (BUILD / "weight.txt").write_text("\n".join(table) + "\n")
    assert heavy == []


def _selectors(page: Page) -> list[str]:
    """Return the selectors of all rules of the page's styles, also of those for other screens and for paper."""
    found: list[str] = page.evaluate(
        """() => {
            const all = (rules) => [...rules].flatMap((rule) => rule.selectorText ?? all(rule.cssRules ?? []));
            return [...document.styleSheets].flatMap((sheet) => all(sheet.cssRules));
        }"""
    )
    return found


def test_every_rule_of_the_styles_is_one_that_a_page_uses(site: str, browser: Browser) -> None:
    """Each selector matches something on a page as it comes, or is for a state that a reader brings about."""
    context = browser.new_context()
    page = context.new_page()
    unused: set[str] | None = None
    for name in PAGES:
        page.goto(urljoin(site, name))
        if unused is None:
            unused = {text for text in _selectors(page) if not any(state in text for state in STATES)}
        unused -= set(
            page.evaluate(
                """(texts) => texts.filter((text) => {
                    const plain = text.replaceAll(/::?(before|after|marker|details-content)/g, "").trim();
                    return plain.split(/,(?![^(]*\\))/).some((one) => !one.trim() || document.querySelector(one));
                })""",
                sorted(unused),
            )
        )
    context.close()
    assert not unused, f"site.css has rules that no page uses: {sorted(unused or ())}"
