"""The review page in a real browser: decide, correct, undo, save, and import what it saved."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect

from salip_ray.datasets.pseudo_labels import PseudoLabels
from salip_ray.datasets.reviews import Reviews
from salip_ray.output.reader import LabelOutput
from salip_ray.review.importing import import_file
from salip_ray.review.runs import unpack
from tests.browser import CONTRAST

pytestmark = pytest.mark.browser


#: Counts the pictures that the page has decoded.
COUNT_DECODED = """window.decoded = 0;
const decode = window.createImageBitmap;
window.createImageBitmap = (...given) => { window.decoded += 1; return decode(...given); };"""


@pytest.fixture
def opened(browser, thorax, write_page):
    """Opens a page, by default of the thorax; it may request nothing and log no error."""
    files, requested, errors, contexts = set(), [], [], []

    def open_page(output=thorax, **properties):
        file, _ = write_page(output)
        files.add(file.as_uri())
        context = browser.new_context(**properties)
        contexts.append(context)
        context.add_init_script(COUNT_DECODED)
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(file.as_uri())
        at(page, 1)
        return page

    yield open_page
    for context in contexts:
        context.close()
    local = ("data:", "blob:")
    assert {url for url in requested if not url.startswith(local)} == files
    assert errors == []


def at(page, number):
    """Wait until the image of a number, from 1, is shown."""
    expect(page.locator("#place")).to_have_text(re.compile(rf"^{number} of"))


def status(page, words):
    expect(page.locator("#status")).to_have_text(words)


def saved(page, tmp_path):
    """Save the decisions; return the file and its images by id."""
    with page.expect_download() as download:
        page.keyboard.press("Control+s")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    content = json.loads(file.read_text())
    return file, {image["image_id"]: image for image in content["images"]}


def paint(page, x0, y0, x1, y1):
    """Draw a line in pixels of the image."""
    box = page.locator("#canvas").bounding_box()
    width, height = map(int, re.findall(r"\d+", page.inner_text("#size")))
    scale = min(box["width"] / width, box["height"] / height)
    left = box["x"] + (box["width"] - width * scale) / 2
    top = box["y"] + (box["height"] - height * scale) / 2
    page.mouse.move(left + x0 * scale, top + y0 * scale)
    page.mouse.down()
    page.mouse.move(left + x1 * scale, top + y1 * scale, steps=8)
    page.mouse.up()


def distances(shape, x0, y0, x1, y1):
    """Return the distance of the centre of each pixel [H, W] from a line."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    along = np.clip(along, 0, 1)
    return np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0))


def test_accept_reject_brush_undo_save_and_import(opened, thorax, tmp_path, write_page):
    _, entries = write_page(thorax)
    labels = PseudoLabels(str(thorax), negatives=True)
    before = [labels.label_map(entry) for entry in entries]
    page = opened()
    page.keyboard.press("a")
    at(page, 2)
    page.keyboard.press("r")
    at(page, 3)
    # A stroke of the second class, and another that is undone.
    page.keyboard.press("2")
    page.keyboard.press("b")
    page.locator("#brush-size").fill("8")
    paint(page, 6, 30, 40, 34)
    status(page, "partly decided")
    paint(page, 6, 8, 50, 8)
    page.keyboard.press("u")
    page.keyboard.press("a")
    at(page, 4)
    page.keyboard.press("ArrowLeft")
    at(page, 3)
    status(page, "corrected")

    file, images = saved(page, tmp_path)
    first, second, third = (images[entry.image_id] for entry in entries[:3])
    assert (first["accepted"], first["rejected"], first["corrected"]) == ([1, 2], [], [])
    assert (second["accepted"], second["rejected"], second["corrected"]) == ([], [1, 2], [])
    painted = unpack(third["label_map"], (third["height"], third["width"]), 255)
    # The mouse moves in whole pixels of the screen, so a pixel at the very edge may be either.
    distance = distances(painted.shape, 6, 30, 40, 34)
    assert (painted[distance < 3.8] == 2).all()
    np.testing.assert_array_equal(painted[distance > 4.2], before[2][distance > 4.2])
    changed = [i for i in (1, 2) if ((painted == i) != (before[2] == i)).any()]
    assert third["corrected"] == changed

    imported = import_file(file, str(thorax))
    assert (imported.corrected, imported.accepted, imported.rejected) == (1, 1, 1)
    after = PseudoLabels(str(thorax))
    by_id = {entry.image_id: entry for entry in after.entries}
    assert entries[1].image_id not in by_id
    assert by_id[entries[0].image_id].confidence == 1.0
    np.testing.assert_array_equal(after.label_map(by_id[entries[2].image_id]), painted)
    np.testing.assert_array_equal(after.label_map(by_id[entries[0].image_id]), before[0])


def test_classes_are_decided_one_by_one(opened, thorax, tmp_path, write_page):
    _, entries = write_page(thorax)
    page = opened()
    page.get_by_role("button", name="Accept lung").click()
    status(page, "partly decided")
    page.locator("#reason").select_option("wrong structure")
    page.get_by_role("button", name="Reject heart").click()
    at(page, 2)
    # The keys of one class; a second press takes the decision back.
    page.keyboard.press("2")
    page.keyboard.press("q")
    status(page, "partly decided")
    page.keyboard.press("q")
    status(page, "undecided")
    file, images = saved(page, tmp_path)
    (decided,) = images.values()
    assert decided.pop("image_id") == entries[0].image_id
    assert decided == {
        "accepted": [1],
        "rejected": [2],
        "corrected": [],
        "reason": "wrong structure",
    }
    import_file(file, str(thorax))
    decisions = Reviews.of(LabelOutput.open(str(thorax))).decisions[entries[0].image_id]
    assert {(one.verdict, one.classes, one.reason) for one in decisions} == {
        ("accepted", (1,), ""),
        ("rejected", (2,), "wrong structure"),
    }


def test_decisions_survive_a_reload_and_undo_goes_back_to_the_image(opened, tmp_path):
    page = opened()
    page.keyboard.press("a")
    at(page, 2)
    page.keyboard.press("b")
    paint(page, 4, 6, 12, 6)
    status(page, "partly decided")
    page.reload()
    at(page, 2)  # the first undecided image
    status(page, "partly decided")
    assert page.inner_text("#decided") == "1 of 6 decided"
    page.keyboard.press("r")
    at(page, 3)
    page.keyboard.press("Control+z")
    at(page, 2)
    status(page, "partly decided")
    _, images = saved(page, tmp_path)
    assert len(images) == 2


def test_a_wiped_correction_is_no_correction(opened, tmp_path):
    page = opened()
    page.keyboard.press("b")
    paint(page, 2, 2, 12, 2)
    status(page, "partly decided")
    page.get_by_role("button", name="Erase").click()
    page.locator("#brush-size").fill("20")
    paint(page, 1, 1, 14, 1)
    page.get_by_role("button", name="Reset image").click()
    status(page, "undecided")
    _, images = saved(page, tmp_path)
    assert images == {}


def test_a_finger_paints_on_a_phone(opened, tmp_path):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.get_by_role("button", name="Brush").tap()
    box = page.locator("#canvas").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    status(page, "partly decided")
    page.get_by_role("button", name="Undo").tap()
    status(page, "undecided")
    page.get_by_role("button", name="Accept", exact=True).tap()
    at(page, 2)


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_sideways_scrolling(opened, width):
    page = opened(viewport={"width": width, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator("#help-open").click()
    assert page.evaluate("help.scrollWidth <= help.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_in_light_and_dark(opened, scheme):
    page = opened(color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    darkness = max(int(v) for v in paper.removeprefix("rgb(").removesuffix(")").split(","))
    assert (darkness < 60) == (scheme == "dark")
    page.keyboard.press("a")
    at(page, 2)
    page.keyboard.press("ArrowLeft")
    status(page, "accepted")
    page.locator("#help-open").click()
    words = page.locator("h1, h2, .soft, button, label, .chip, dd, dt, kbd, b")
    poor = "elements => elements.filter(e => e.checkVisibility() && e.innerText.trim())"
    poor += f".map(e => [e.outerHTML, ({CONTRAST})(e)]).filter(([, ratio]) => ratio < 4.5)"
    assert words.evaluate_all(poor) == []


def test_controls_have_names_and_a_minimum_size(opened):
    page = opened(viewport={"width": 390, "height": 844})
    measure = """controls => controls.filter(e => e.checkVisibility()).map(e => [
        e.outerHTML,
        e.ariaLabel || e.innerText || [...(e.labels || [])].map(label => label.innerText).join(),
        Math.max(e.offsetHeight, e.closest("label")?.offsetHeight ?? 0),
    ])"""
    controls = page.locator("button, select, input").evaluate_all(measure)
    assert len(controls) > 30
    for html, name, height in controls:
        assert name.strip(), html
        assert height >= 24, html  # WCAG 2.2, target size


def test_a_screen_reader_hears_the_image_and_the_decision(opened):
    page = opened()
    live = page.locator("#live[role=status]")
    expect(live).to_contain_text("Image 1 of 6")
    expect(live).to_contain_text("undecided. lung: confidence 0.30")
    canvas = page.get_by_role("img", name="Image 1 of 6")
    assert canvas.count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.get_by_role("button", name="Accept lung").click()
    expect(live).to_have_text("Accepted lung.")
    assert page.get_by_role("button", name="Accept lung").get_attribute("aria-pressed") == "true"


def test_single_keys_can_be_switched_off(opened):
    page = opened()
    page.locator("#help-open").click()
    page.get_by_label("Use single keys").uncheck()
    page.locator("#help-close").click()
    page.keyboard.press("a")
    page.keyboard.press("ArrowRight")
    at(page, 2)
    assert page.inner_text("#decided") == "0 of 6 decided"


def test_window_and_level_change_what_is_shown_and_not_what_is_saved(opened, tmp_path):
    page = opened()
    shown = "document.getElementById('canvas').toDataURL()"
    page.wait_for_timeout(100)
    before = page.evaluate(shown)
    page.locator("#level").fill("30")
    page.locator("#window").fill("20")
    page.wait_for_timeout(100)
    assert page.evaluate(shown) != before
    page.get_by_role("button", name="Reset window").click()
    page.wait_for_timeout(100)
    assert page.evaluate(shown) == before
    assert saved(page, tmp_path)[1] == {}


def test_opacity_and_zoom_change_the_view_and_not_what_is_saved(opened, tmp_path):
    page = opened()
    canvas = page.locator("#canvas")

    def shown():
        page.wait_for_timeout(150)
        return canvas.evaluate("element => element.toDataURL()")

    before = shown()
    page.locator("#opacity").fill("100")
    assert (opaque := shown()) != before
    page.locator("#opacity").fill("0")
    without = shown()
    assert len({before, opaque, without}) == 3
    page.locator("#opacity").fill("40")
    page.keyboard.press("h")
    assert shown() == without
    page.keyboard.press("h")
    assert shown() == before
    fitted = page.inner_text("#zoom-value")
    page.keyboard.press("+")
    expect(page.locator("#zoom-value")).not_to_have_text(fitted)
    assert shown() != before
    page.keyboard.press("0")
    expect(page.locator("#zoom-value")).to_have_text(fitted)
    assert shown() == before
    canvas.hover()
    page.mouse.wheel(0, -200)
    expect(page.locator("#zoom-value")).not_to_have_text(fitted)
    page.get_by_role("button", name="Fit to the window").click()
    expect(page.locator("#zoom-value")).to_have_text(fitted)
    assert saved(page, tmp_path)[1] == {}


def test_keys_change_the_brush_and_choose_what_it_paints(opened, tmp_path):
    page = opened()
    size = int(page.input_value("#brush-size"))
    page.keyboard.press("]")
    assert int(page.input_value("#brush-size")) > size
    for _ in range(9):
        page.keyboard.press("[")
    assert int(page.input_value("#brush-size")) == 1
    page.locator("#brush-size").fill("4")
    page.get_by_role("radio", name="pixels to ignore").check()
    page.keyboard.press("b")
    paint(page, 3, 1, 12, 1)
    status(page, "corrected")  # background that is ignored concerns all classes
    page.keyboard.press("e")
    page.keyboard.press("1")
    paint(page, 8, 1, 14, 1)
    image = next(iter(saved(page, tmp_path)[1].values()))
    painted = unpack(image["label_map"], (image["height"], image["width"]), 255)
    assert (painted[1, 3:6] == 255).all()
    assert not painted[1, 8:14].any()


def test_pictures_are_decoded_when_they_are_shown(opened, mixed):
    page = opened(mixed)
    decoded = lambda: page.evaluate("window.decoded")  # noqa: E731
    expect(page.locator("#list li")).to_have_count(30)
    assert decoded() == 2  # the first one, and the next one in advance
    for number in range(2, 8):
        page.keyboard.press("ArrowRight")
        at(page, number)
    assert decoded() == 8
    page.keyboard.press("ArrowLeft")
    at(page, 6)
    assert decoded() == 8  # the latest ones stay decoded


def test_the_list_filters_and_jumps(opened):
    page = opened()
    page.keyboard.press("a")
    at(page, 2)
    page.locator("#filter").select_option("accepted")
    at(page, 1)
    assert page.locator("#list li:visible").count() == 1
    page.locator("#filter").select_option("all")
    page.locator("#list button").nth(4).click()
    at(page, 5)
    assert page.locator("#list [aria-current]").count() == 1


def test_pictures_match_the_images(opened, thorax, write_page):
    _, entries = write_page(thorax)
    page = opened()
    page.keyboard.press("h")
    page.wait_for_timeout(100)
    box = page.locator("#canvas").bounding_box()
    shot = cv2.imdecode(np.frombuffer(page.screenshot(clip=box), np.uint8), cv2.IMREAD_GRAYSCALE)
    image = PseudoLabels(str(thorax), negatives=True).sample(entries[0])["image"][..., 0]
    scale = min(box["width"] / image.shape[1], box["height"] / image.shape[0])
    left = (box["width"] - image.shape[1] * scale) / 2
    top = (box["height"] - image.shape[0] * scale) / 2
    for y, x in ((10, 15), (20, 40), (30, 5)):
        pixel = shot[int(top + (y + 0.5) * scale), int(left + (x + 0.5) * scale)]
        assert abs(int(pixel) - int(image[y, x])) <= 6


def centre_of(page):
    """Return the grey of the middle of the canvas, and of a pixel outside of the faint square."""
    box = page.locator("#canvas").bounding_box()
    shot = cv2.imdecode(np.frombuffer(page.screenshot(clip=box), np.uint8), cv2.IMREAD_GRAYSCALE)
    height, width = shot.shape
    side = min(height / 30, width / 40)  # of an image pixel
    return int(shot[height // 2, width // 2]), int(shot[height // 2, int(width / 2 + 17 * side)])


def test_a_volume_scrolls_and_its_window_shows_what_8_bits_lose(opened, volume, tmp_path):
    page = opened(volume)
    assert page.inner_text("#slice-place") == "slice 1 of 5"
    page.keyboard.press("ArrowDown")
    at(page, 2)
    page.locator("#canvas").hover()
    page.mouse.wheel(0, 100)
    at(page, 3)
    page.keyboard.press("h")
    page.wait_for_timeout(150)
    inside, outside = centre_of(page)
    assert abs(inside - outside) <= 2  # 20 of 31,000
    page.locator("#window").fill("40")
    page.locator("#level").fill("1010")
    level = float(page.input_value("#level"))
    page.wait_for_timeout(150)
    inside, outside = centre_of(page)
    assert inside - outside > 60, level
    # The window stays from slice to slice, and Shift+A decides all of them.
    page.locator("#opacity").click()  # gives the arrow keys back to the images
    page.keyboard.press("ArrowUp")
    at(page, 2)
    page.wait_for_timeout(150)
    assert centre_of(page)[0] - centre_of(page)[1] > 60
    page.keyboard.press("Shift+A")
    expect(page.locator("#decided")).to_have_text("5 of 5 decided")
    _, images = saved(page, tmp_path)
    assert len(images) == 5
    page.keyboard.press("u")
    expect(page.locator("#decided")).to_have_text("0 of 5 decided")
