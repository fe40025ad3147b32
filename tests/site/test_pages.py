"""The built site in a real browser: every page, phone and desktop, light and dark. `nox -s site` runs it."""

from typing import Literal
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

from tests.site.conftest import HTML, PAGES

SIZES = {"phone": (360, 740), "desktop": (1280, 900)}
Scheme = Literal["light", "dark"]
# The rules that look at colours: the others find the same in both schemes.
COLOURS = ["color-contrast", "link-in-text-block"]
# It has the other pages' parts once more, in the same colours; to look at them all at once takes a minute each time.
REPEATS = "everything.html"


class Visit:
    """A page in a fresh context that notes what the console says and which addresses were asked."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page: Page = context.new_page()
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address, wait_until="networkidle")


@pytest.mark.parametrize(("size", "first", "then"), [("phone", "dark", "light"), ("desktop", "light", "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_clean_in_the_light_and_in_the_dark(
    site: str, browser: Browser, name: str, size: str, first: Scheme, then: Scheme
) -> None:
    """No console error, no request off the host, no accessibility violation, no horizontal scroll."""
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=first)
    visit = Visit(context, urljoin(site, name))
    _is_clean(visit.page, {"rules": {rule: {"enabled": name != REPEATS} for rule in COLOURS}})
    if name != REPEATS:
        visit.page.emulate_media(color_scheme=then)
        _is_clean(visit.page, {"runOnly": COLOURS})
    assert visit.errors == []
    off = [url for url in visit.requests if not url.startswith((site, "data:", "blob:"))]
    assert off == []
    context.close()


def _is_clean(page: Page, rules: dict[str, object]) -> None:
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px wider than the screen"
    found = Axe().run(page, options={"resultTypes": ["violations"], **rules})
    assert found.violations_count == 0, found.generate_report()


@pytest.fixture(scope="session")
def anchors(browser: Browser, site: str) -> dict[str, set[str]]:
    """Every page's anchors."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    found = {}
    for name in PAGES:
        page.goto(urljoin(site, name))
        found[name] = set(page.eval_on_selector_all("[id]", "nodes => nodes.map(node => node.id)"))
    context.close()
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_internal_link_lands(browser: Browser, site: str, anchors: dict[str, set[str]], name: str) -> None:
    """A link within the site names a file that is there, and an anchor that is on it."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(urljoin(site, name))
    links = page.eval_on_selector_all("a[href], link[href]", "nodes => nodes.map(node => node.href)")
    context.close()
    dead = []
    for link in links:
        address, anchor = urldefrag(link)
        if not address.startswith(site):
            continue
        path = urlsplit(address).path.lstrip("/") or "index.html"
        wanted = HTML / path
        if not wanted.is_file() or (anchor and path in anchors and anchor not in anchors[path]):
            dead.append(link)
    assert dead == []
