"""The report in a real browser: from disk, without a network, by keyboard, small, in the dark."""

from __future__ import annotations

import pytest

from salip_ray.report.build import make_report
from tests.browser import CONTRAST

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(browser, run, tmp_path):
    """Opens the report in a page of some properties; nothing may be requested or fail."""
    file = tmp_path / "report.html"
    file.write_text(make_report(str(run)), encoding="utf-8")
    asked, wrong, contexts = [], [], []

    def open_page(**properties):
        context = browser.new_context(**properties)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.goto(file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    assert wrong == []


def name(page) -> str:
    return page.locator("#viewer-title").inner_text()


def test_all_pictures_load(opened):
    page = opened()
    images = page.locator(".item img")
    images.last.scroll_into_view_if_needed()
    widths = images.evaluate_all("images => images.map(image => image.naturalWidth)")
    assert len(widths) == 5
    assert all(width >= 96 for width in widths)


def test_the_keyboard_opens_walks_and_closes(opened):
    page = opened()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('item')"):
            break
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    assert name(page) == "xray-0.png"
    page.keyboard.press("ArrowRight")
    assert name(page) == "xray-1.png"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#detail").get_by_text("ImageError").is_visible()
    page.keyboard.press("ArrowRight")
    # The focus stays within the open dialog.
    for _ in range(30):
        page.keyboard.press("Tab")
        inside = "!document.hasFocus() || document.activeElement === document.body"
        assert page.evaluate(f"{inside} || document.activeElement.closest('#viewer') !== null")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    focused = page.evaluate("document.activeElement.querySelector('.name').textContent")
    assert focused == "xray-0.png"


def test_layers_are_shown_and_hidden(opened):
    page = opened()
    page.locator("button.item").first.click()
    stage = page.locator("#stage")
    assert stage.locator(".l-cascade").is_visible()
    assert not stage.locator(".l-gt_sam").is_visible()
    page.get_by_label("GT-SAM").check()
    page.get_by_label("cascade", exact=True).uncheck()
    assert stage.locator(".l-gt_sam").is_visible()
    assert not stage.locator(".l-cascade").is_visible()
    # The choice stays for the next image.
    page.get_by_role("button", name="Next image").click()
    assert stage.locator(".l-gt_sam").is_visible()


def test_a_candidate_marks_its_box(opened):
    page = opened()
    page.locator("button.item").first.click()
    candidate = page.get_by_role("button", name="#3")
    candidate.click()
    assert candidate.get_attribute("aria-pressed") == "true"
    page.locator("#viewer-title").hover()
    assert page.locator("#stage .found").count() == 1


def test_a_runner_up_shows_its_box_on_demand(opened):
    page = opened()
    page.locator("button.item").first.click()
    box = page.locator("#stage .b-other")
    assert not box.is_visible()
    runner_up = page.get_by_role("button", name="#5")
    assert "not retrieved" in runner_up.locator("xpath=ancestor::tr").inner_text()
    runner_up.click()
    assert box.is_visible()


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_no_sideways_scrolling(opened, width):
    page = opened(viewport={"width": width, "height": 740})
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert page.evaluate(fits)
    page.locator("button.item").first.click()
    assert page.evaluate("viewer.scrollWidth <= viewer.clientWidth")
    assert page.evaluate(fits)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_scheme_and_can_be_read(opened, scheme):
    page = opened(color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    darkness = max(int(v) for v in paper.removeprefix("rgb(").removesuffix(")").split(","))
    assert (darkness < 60) == (scheme == "dark")
    for selector in ("h1", "h3", ".soft", ".brand", ".name", ".reason", "td", ".notice", "a.skip"):
        for element in page.locator(selector).all():
            assert element.evaluate(CONTRAST) >= 4.5, (selector, element.inner_text())


def test_controls_have_names_and_a_minimum_size(opened):
    page = opened(viewport={"width": 375, "height": 740})
    page.locator("button.item").first.click()
    for button in page.locator("#viewer button").all():
        box = button.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24  # WCAG 2.2, target size
        assert button.get_attribute("aria-label") or button.inner_text().strip()
