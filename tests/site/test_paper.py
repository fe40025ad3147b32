"""What is left of a page without scripts, and on paper: its code, its output, its figures and its claims."""

from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, Page

from tests.site.conftest import CHAPTERS

# What has to be seen: what it is, and where it stands.
WANTED = {
    "heading": ".text h1",
    "code": "figure.block.shown pre, figure.block.called .cell_input pre",
    "output": "figure.block :is(.cell_output, .recorded) pre",
    "figure": "figure.chart svg",
    "claim": ".note",
    "evidence": "figure.block .evidence",
}


def _unseen(page: Page, folds: str) -> list[str]:
    """Return what of the page can't be seen, but for what is inside of `folds`, a selector."""
    return [
        kind
        for kind, where in WANTED.items()
        for seen in page.locator(where).evaluate_all(
            """(all, folds) => all.filter(one => !one.parentElement.closest(folds)).map(
                one => one.checkVisibility() && one.getBoundingClientRect().height > 2)""",
            folds,
        )
        if not seen
    ]


@pytest.mark.parametrize("name", CHAPTERS)
def test_on_paper_a_page_has_code_output_figures_and_claims(site: str, browser: Browser, name: str) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 794, "height": 1123})
    page = context.new_page()
    page.goto(urljoin(site, name))
    page.emulate_media(media="print")
    assert _unseen(page, "none") == []
    opened = page.locator("details li").evaluate_all(
        "all => all.filter(one => !one.checkVisibility({contentVisibilityAuto: true})).length"
    )
    assert opened == 0, "what is folded away on a screen can't be unfolded on paper"
    assert page.locator("header, #menu, .skip").evaluate_all("all => all.every(one => !one.checkVisibility())")
    assert len(page.pdf()) > 20_000
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", CHAPTERS)
def test_without_scripts_a_page_has_them_too_in_the_colours_that_the_reader_has_chosen(
    site: str, browser: Browser, name: str, scheme: str
) -> None:
    context = browser.new_context(
        java_script_enabled=False,
        viewport={"width": 1280, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.goto(urljoin(site, name))
    # A reader opens these.
    assert _unseen(page, ".whole, .recorded details") == []
    ground = page.locator("html").evaluate("one => getComputedStyle(one).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 26)"}[scheme]
    frames = page.locator("figure.block").evaluate_all("all => all.map(one => getComputedStyle(one).borderTopWidth)")
    assert set(frames) == {"1px"}
    context.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_on_a_phone_without_scripts_a_number_opens_its_claim(site: str, browser: Browser, name: str) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(urljoin(site, name))
    note = page.locator(".note").first
    assert note.evaluate("one => one.getBoundingClientRect().height") <= 2
    page.locator("sup a").first.click()
    assert note.evaluate("one => one.getBoundingClientRect().height") > 10
    context.close()


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", CHAPTERS)
def test_no_number_of_a_claim_begins_a_line_and_each_note_begins_at_its_sentence(
    site: str, browser: Browser, name: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(urljoin(site, name))
    # A number that begins a line stands left of the end of what is before it.
    alone = page.locator("p sup").evaluate_all(
        """all => all.filter(one => {
            const before = document.createRange();
            const nodes = document.createTreeWalker(one.closest("p"), NodeFilter.SHOW_TEXT, (text) =>
                text.textContent.replaceAll("\u2060", "").trim() && !text.parentElement.closest("small") ? 1 : 3);
            let last = null;
            for (let node = nodes.nextNode(); node && !one.contains(node); node = nodes.nextNode()) last = node;
            if (!last) return false;
            const end = last.textContent.replaceAll("\u2060", "").trimEnd().length;
            before.setStart(last, Math.max(0, end - 1));
            before.setEnd(last, end);
            return one.getBoundingClientRect().left < before.getBoundingClientRect().left;
        }).map(one => one.closest("p").textContent.slice(0, 60))"""
    )
    assert alone == []
    if width == 1280:
        far = page.locator(".note").evaluate_all(
            """all => all.filter(one => {
                const mark = document.querySelector(`sup a[href="#${one.id}"]`);
                const [note, number] = [one, mark].map(node => node.getBoundingClientRect().top);
                return !mark.closest("table") && note - number < -40;
            }).map(one => one.textContent)"""
        )
        assert far == [], "a note stands above its sentence"
    context.close()


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_is_as_wide_as_a_phone_and_its_words_are_not_shrunk(
    site: str, browser: Browser, name: str
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(urljoin(site, name))
    outside = page.locator("figure.chart svg text").evaluate_all(
        """all => all.filter(one => one.checkVisibility()).filter(one => {
            const box = one.getBoundingClientRect();
            return box.left < 0 || box.right > innerWidth || box.height < 10;
        }).map(one => one.textContent)"""
    )
    assert outside == []
    assert not page.locator("pre").evaluate_all(
        "all => all.filter(one => one.scrollWidth > one.clientWidth + 1).length"
    )
    context.close()
