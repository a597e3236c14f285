"""What is done to one photo on the page: masks, strength, zoom, by mouse and by keyboard."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from page import Page, page, picture
from PIL import Image, ImageOps
from serving_fixtures import Served

__all__ = ["browser", "page"]


def test_only_the_painted_hole_changes(page: Page, tmp_path: Path) -> None:
    source = picture(tmp_path / "portrait.jpg", 300, 200, exif=turned(6), quality=95)
    page.choose("Scratched or torn")
    page.add(source)
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    page.tab.wait_for_function("() => document.getElementById('before').naturalWidth === 200")
    assert page.tab.is_disabled("#restore")
    page.stroke((0.2, 0.2), (0.6, 0.4))
    page.stroke((0.3, 0.7), (0.7, 0.7))
    page.tab.click("#undo")
    page.tab.click("#redo")
    page.tab.click("#eraser")
    page.stroke((0.3, 0.7), (0.45, 0.7))
    page.tab.click("#restore")
    page.wait_result()
    name, data = page.download("#save")
    assert name == "portrait.png"  # a JPEG would compress the untouched pixels anew
    before = np.asarray(ImageOps.exif_transpose(Image.open(source))).astype(int)
    after = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).astype(int)
    assert before.shape == after.shape == (300, 200, 3)
    changed = (before != after).any(-1)
    filled = (after == 64).all(-1)
    assert not (changed & ~filled).any()
    assert filled[90, 80]
    assert filled[210, 120]
    assert not filled[210, 70]
    assert 0.005 < filled.mean() < 0.2


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def test_a_mask_is_loaded_inverted_and_cleared(page: Page, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    half = np.zeros((80, 120), np.uint8)
    half[:, :60] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    page.choose("Scratched or torn")
    page.add(source)
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    page.tab.wait_for_function("() => document.getElementById('before').naturalWidth === 120")
    page.tab.click("#invert")
    page.tab.click("#clear")
    assert page.tab.is_disabled("#restore")
    page.tab.set_input_files("#mask-file", str(tmp_path / "mask.png"))
    page.tab.wait_for_function("() => !document.getElementById('restore').disabled")
    page.tab.click("#invert")
    page.tab.click("#restore")
    page.wait_result()
    after = np.asarray(Image.open(io.BytesIO(page.download("#save")[1])))
    np.testing.assert_array_equal(after[:, :60], np.asarray(Image.open(source))[:, :60])
    assert (after[:, 60:] == 64).all()


def test_a_portrait_stays_a_portrait(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "portrait.jpg", 90, 60, exif=turned(8)))
    page.wait_result()
    box = page.tab.locator("#after").bounding_box()
    assert box["height"] > box["width"]
    assert page.rows().locator(".state").text_content() == "Done, 60 × 90 pixels"
    image = Image.open(io.BytesIO(page.download("#save")[1]))
    assert (image.size, image.getexif()[0x0112]) == ((90, 60), 8)


def test_strength_is_what_is_seen_and_what_is_saved(page: Page, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    page.choose("Scratched or torn")
    page.add(source)
    page.tab.wait_for_function("() => document.getElementById('before').naturalWidth === 120")
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    page.paint_nearly_all()
    page.tab.click("#restore")
    page.wait_result()
    page.tab.locator("#strength").fill("50")
    assert page.tab.text_content("#strength-value") == "50%"
    saved = np.asarray(Image.open(io.BytesIO(page.download("#save")[1]))).astype(float)
    expected = np.asarray(Image.open(source)) * 0.5 + 32
    assert np.abs(saved - expected)[:60].max() <= 1  # above the corner that is not painted
    page.tab.locator("#split").fill("0")
    shot = Image.open(io.BytesIO(page.tab.locator("#stage").screenshot())).convert("RGB")
    seen = np.asarray(shot)[shot.height // 2, shot.width // 2].astype(float)
    assert np.abs(seen - expected[40, 60]).max() < 6


def test_zoom_and_place_are_the_same_before_and_after(page: Page, tmp_path: Path) -> None:
    page.choose("Small")
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    tab = page.tab
    tab.click("#zoom-in")
    tab.click("#zoom-in")
    tab.locator("#stage").focus()
    tab.keyboard.press("ArrowRight")
    boxes = [tab.locator(f"#{name}").bounding_box() for name in ("before", "after")]
    assert boxes[0] == boxes[1]
    tab.click("#zoom-full")
    assert tab.text_content("#zoom-value") == "100%"
    assert tab.locator("#after").bounding_box()["width"] == 240
    split = tab.locator("#divider").bounding_box()
    tab.mouse.move(split["x"] + split["width"] / 2, split["y"] + 40)
    tab.mouse.down()
    tab.mouse.move(split["x"] - 200, split["y"] + 40, steps=5)
    tab.mouse.up()
    assert float(tab.input_value("#split")) < 40
    assert tab.locator("#after").bounding_box()["width"] == 240
    tab.locator("#hold").hover()
    tab.mouse.down()
    assert "100%" in tab.evaluate("document.getElementById('after-layer').style.clipPath")
    tab.mouse.up()
    assert "100%" not in tab.evaluate("document.getElementById('after-layer').style.clipPath")


def test_painting_begins_with_its_tools_in_sight(page: Page, tmp_path: Path) -> None:
    def in_sight() -> None:
        for tool in ("stage", "brush", "restore"):
            box = page.tab.locator(f"#{tool}").bounding_box()
            assert 0 <= box["y"] <= 900 - box["height"], tool

    page.choose("Scratched or torn")
    page.add(picture(tmp_path / "a.png"))
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    in_sight()
    page.paint_nearly_all()
    page.tab.click("#restore")
    page.wait_result()
    assert page.tab.is_hidden("#again"), "it would be the same as to paint again"
    page.tab.evaluate("window.scrollTo({ top: 0, behavior: 'instant' })")
    page.tab.evaluate("document.getElementById('paint-again').click()")  # without scrolling there
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    in_sight()


@pytest.mark.parametrize("height", [844, 620])
def test_on_a_phone_the_button_that_restores_is_in_sight_while_painting(
    browser: Any, served: Served, tmp_path: Path, height: int
) -> None:
    page = Page(browser, served, viewport={"width": 390, "height": height}, reduced_motion="reduce")
    tab = page.tab
    page.choose("Scratched or torn")
    page.add(picture(tmp_path / "a.png"))
    tab.wait_for_selector("#mask-tools:not([hidden])")
    tab.wait_for_function("() => document.getElementById('before').naturalWidth === 120")

    def in_sight() -> None:
        box = tab.locator("#restore").bounding_box()
        assert 0 <= box["y"] <= height - box["height"]

    in_sight()
    page.stroke((0.2, 0.3), (0.7, 0.5))
    for scrolled in (0, 100, 200):
        tab.evaluate(f"window.scrollTo({{ top: {scrolled}, behavior: 'instant' }})")
        in_sight()
    tab.locator("#clear").focus()
    tools, clear = (tab.locator(at).bounding_box() for at in ("#save-tools", "#clear"))
    assert clear["y"] + clear["height"] <= tools["y"], "what has the keyboard is covered"
    tab.click("#restore")
    page.wait_result()
    assert tab.is_hidden("#restore")
    page.check()
    page.context.close()


def test_a_finger_on_a_whole_photo_moves_the_divider_and_leaves_the_page_free(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = Page(browser, served, **options)
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    tab, session = page.tab, page.context.new_cdp_session(page.tab)
    tab.locator("#viewer").scroll_into_view_if_needed()
    box = tab.locator("#stage").bounding_box()

    def swipe(across: float, down: float) -> None:
        x, y = box["x"] + 250, max(box["y"], 0) + 150
        for step in range(11):
            point = {"x": x + across * step / 10, "y": y + down * step / 10}
            kind = "touchMove" if step else "touchStart"
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    swipe(-150, 0)
    assert float(tab.input_value("#split")) < 40
    free = "getComputedStyle(document.getElementById('stage')).touchAction"
    assert tab.evaluate(free) == "pan-y"
    tab.click("#zoom-in")
    assert tab.evaluate(free) == "none"
    split, place = tab.input_value("#split"), tab.locator("#after").bounding_box()
    swipe(-30, 0)
    assert tab.input_value("#split") == split
    assert tab.locator("#after").bounding_box()["x"] < place["x"]
    tab.click("#zoom-out")
    assert tab.evaluate(free) == "pan-y", "the whole photo is in sight again"
    page.check()
    page.context.close()


def test_everything_is_done_by_keyboard_alone(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.name") == "model"
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate("document.activeElement.value") == "fill"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "pick-files"
    with tab.expect_file_chooser() as waited:
        tab.keyboard.press("Enter")
    waited.value.set_files(str(picture(tmp_path / "a.png")))
    tab.wait_for_selector("#mask-tools:not([hidden])")
    tab.wait_for_function("() => document.getElementById('before').naturalWidth === 120")
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "stage":
            break
    for key in ("ArrowUp", "Enter", "ArrowLeft", "Enter"):
        tab.keyboard.press(key)
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "restore":
            break
    tab.keyboard.press("Enter")
    page.wait_result()
    tab.locator("#save").focus()
    with tab.expect_download() as saved:
        tab.keyboard.press("Enter")
    after = np.asarray(Image.open(saved.value.path()))
    assert 0 < (after == 64).all(-1).mean() < 0.1


def test_the_keyboard_goes_on_where_a_button_goes_away(page: Page, tmp_path: Path) -> None:
    focused = "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
    page.add(*(picture(tmp_path / f"{name}.png") for name in "abc"))
    page.wait_rows(3)
    page.wait_result()

    def press(selector: str) -> str:
        page.tab.locator(selector).first.focus()
        page.tab.keyboard.press("Enter")
        return str(page.tab.evaluate(focused))

    assert press("#again") == "stage"
    page.wait_rows(3)
    page.choose("Scratched or torn")
    assert press("#again") == "stage"
    assert press("#back") == "stage"
    assert press(".row-cancel") == "Remove b.png"
    page.tab.once("dialog", lambda dialog: dialog.accept())
    assert press("#remove-all") == "pick-files"
