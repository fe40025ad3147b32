"""The built site in a real browser: every page, phone and desktop, light and dark. `nox -s site` runs it."""

from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page

from tests.site.conftest import HTML, PAGES

SIZES = {"phone": (360, 740), "desktop": (1280, 900)}


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


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Each colour scheme."""
    return str(request.param)


@pytest.fixture(params=list(SIZES))
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Each screen."""
    return SIZES[request.param]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_clean(site: str, browser: Browser, name: str, size: tuple[int, int], scheme: str) -> None:
    """No console error, no request off the host, no accessibility violation, no horizontal scroll."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)  # type: ignore[arg-type]
    visit = Visit(context, urljoin(site, name))
    assert visit.errors == []
    off = [url for url in visit.requests if not url.startswith((site, "data:", "blob:"))]
    assert off == []
    wide = visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{wide} px wider than the screen"
    found = Axe().run(visit.page)
    assert found.violations_count == 0, found.generate_report()
    context.close()


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
