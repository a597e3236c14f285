"""Photos go through the page as people bring them: dropped, pasted, cancelled, waiting; nothing from
elsewhere, nothing on the console."""

import io
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from page import Page, crowded, page, picture, wait_for
from PIL import Image
from serving_fixtures import GatedDnCNN, Served, running

from restora.photos.kinds import READABLE
from restora.serving.limits import Limits

__all__ = ["browser", "crowded", "page"]


def drop(page: Page, *paths: Path) -> None:
    """What the system's file manager does."""
    box = page.tab.locator("#drop").bounding_box()
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page.tab)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 50, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


def test_three_photos_and_a_folder_are_dropped_and_come_back_in_one_zip(page: Page, tmp_path: Path) -> None:
    loose = [picture(tmp_path / f"{name}.png") for name in ("one", "two", "três")]
    picture(tmp_path / "album" / "four.jpg")
    picture(tmp_path / "album" / "inner" / "four.jpg")
    (tmp_path / "album" / "notes.txt").write_text("no photo")
    drop(page, *loose, tmp_path / "album")
    page.wait_rows(5)
    assert "album/notes.txt is not a photo and was skipped." in page.tab.text_content("#notice")
    assert page.tab.text_content("#count") == "5 of 5 done"
    name, data = page.download("#save-all")
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        assert held.testzip() is None
        found = {"one.png", "two.png", "três.png", "album/four.jpg", "album/inner/four.jpg"}
        assert set(held.namelist()) == found
        back = np.asarray(Image.open(io.BytesIO(held.read("one.png"))))
    np.testing.assert_array_equal(back, np.asarray(Image.open(loose[0])))
    assert name == "restored.zip"


def test_every_file_that_is_read_can_be_added(page: Page) -> None:
    names = [f"a{suffix.upper()}" for suffix in READABLE]
    check = """async (names) => {
      const { isPhoto } = await import("/page/files.js");
      return names.filter((name) => !isPhoto(new File([], name)));
    }"""
    assert page.tab.evaluate(check, names) == []
    assert page.tab.evaluate(check, ["notes.txt", "film.mp4"]) == ["notes.txt", "film.mp4"]
    accepted = page.tab.get_attribute("#files", "accept").split(",")
    cameras = [suffix for suffix, name in READABLE.items() if name in ("RAW", "HEIC", "HEIF")]
    assert set(cameras) <= set(accepted)


def test_a_document_is_skipped_with_what_to_do(page: Page, tmp_path: Path) -> None:
    for name in ("letter.pdf", "notes.txt"):
        (tmp_path / name).write_text("no photo")
    page.add(tmp_path / "letter.pdf")
    advice = "(save the pictures of a document as JPEG or PNG first)"
    assert page.tab.text_content("#notice") == f"letter.pdf is not a photo and was skipped {advice}."
    page.add(tmp_path / "notes.txt")
    assert page.tab.text_content("#notice") == "notes.txt is not a photo and was skipped."


def test_a_gif_comes_back_as_a_png(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "a.gif"))
    page.wait_result()
    name, data = page.download("#save")
    assert name == "a.png"
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"


def test_a_photo_is_pasted(page: Page, tmp_path: Path) -> None:
    data = picture(tmp_path / "a.png").read_bytes()
    page.tab.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "image.png", { type: "image/png" }));
          const options = { clipboardData: data, bubbles: true, cancelable: true };
          document.dispatchEvent(new ClipboardEvent("paste", options));
        }""",
        list(data),
    )
    page.wait_rows(1)
    assert re.match(r"pasted-\d{6}\.png", page.tab.text_content(".row .name"))


def test_cancel_stops_a_photo_in_the_middle_and_all_the_others(
    crowded: tuple[Page, Served], tmp_path: Path
) -> None:
    page, served = crowded
    page.add(*(picture(tmp_path / f"{index}.png", 480, 40) for index in range(4)))
    page.wait_rows(1, ".running")
    GatedDnCNN.gate.release(2)
    page.tab.wait_for_function("() => document.querySelector('.row progress').value > 0.1")
    page.tab.click(".row.running .row-cancel")
    wait_for(lambda: served.service.queue.running.cancelled.is_set())
    GatedDnCNN.gate.release(1)
    page.wait_rows(1, ".cancelled")
    page.tab.wait_for_function("() => document.querySelectorAll('.row.running').length === 1")
    assert served.service.worker.finished_by_state["cancelled"] == 1
    page.tab.click("#cancel-all")
    page.wait_rows(4, ".cancelled")
    wait_for(lambda: all(job.cancelled.is_set() for job in served.service.store.unfinished()))
    GatedDnCNN.gate.release(1)
    wait_for(lambda: not list(served.service.store.unfinished()))
    assert served.service.worker.finished_by_state["done"] == 0
    assert page.tab.text_content("#count") == "0 of 4 done, 4 cancelled"
    assert all("429" in line for line in page.console)  # the browser notes on its console that it had to wait


def test_all_cancelled_photos_are_restored_again_by_one_button(
    crowded: tuple[Page, Served], tmp_path: Path
) -> None:
    page, _ = crowded
    button = page.tab.locator("#cancel-all")
    page.add(*(picture(tmp_path / f"{index}.png", 40, 40) for index in range(4)))
    page.wait_rows(1, ".running")
    button.dblclick()
    page.wait_rows(4, ".cancelled")
    assert button.text_content() == "Restore 4 again"
    GatedDnCNN.gate.release(100)
    page.tab.click(".row .row-cancel")
    assert button.text_content() == "Restore 3 again"
    button.click()
    assert button.text_content() == "Cancel all"
    page.wait_rows(3)
    assert button.is_disabled()
    assert button.text_content() == "Cancel all"
    assert page.tab.text_content("#count") == "3 of 3 done"


def test_failed_photos_are_restored_again_as_what_is_chosen_since(page: Page, tmp_path: Path) -> None:
    button = page.tab.locator("#cancel-all")
    refused = {"title": "Broken", "detail": "Broken", "status": 500, "code": "internal"}
    page.tab.route("**/v1/restorations*", lambda route: route.fulfill(status=500, json=refused))
    page.expected = "500"
    page.add(*(picture(tmp_path / f"{name}.png") for name in "ab"))
    page.wait_rows(2, ".failed")
    assert button.text_content() == "Restore 2 again"
    page.choose("Scratched or torn")
    assert button.text_content() == "Restore 2 again", "each would need a mask"
    page.choose("Small")
    assert button.text_content() == "Restore 2 again as “small, ×2”"
    page.tab.unroute("**/v1/restorations*")
    button.click()
    page.wait_rows(2)
    assert page.tab.locator(".state").all_text_contents() == ["Done, 240 × 160 pixels"] * 2


def test_a_full_queue_is_shown_as_waiting_and_goes_on_by_itself(
    crowded: tuple[Page, Served], tmp_path: Path
) -> None:
    page, served = crowded
    data = picture(tmp_path / "other.png", 40, 40).read_bytes()
    while served.service.queue.running is None or len(served.service.queue) < 1:
        served.post(data)
        time.sleep(0.05)
    page.add(picture(tmp_path / "mine.png", 40, 40))
    page.tab.wait_for_function(
        "() => document.querySelector('.row .state').textContent.includes('The server is busy, trying again')"
    )
    GatedDnCNN.gate.release(100)
    page.wait_rows(1)
    assert all("429" in line for line in page.console)


@pytest.mark.slow
def test_fifty_megapixels(browser: Any, model_folders: dict[str, Path], tmp_path: Path) -> None:
    from restora.serving.models import load_models

    models = load_models([str(model_folders["denoise"])], device="cpu", precision="float32", tile=1088)
    with running(models, Limits()) as served:
        page = Page(browser, served)
        page.add(picture(tmp_path / "large.jpg", 8660, 5774, quality=90))
        page.tab.wait_for_selector(".row.done", timeout=240_000)
        page.tab.wait_for_function(
            "() => document.getElementById('after').naturalWidth === 8660", timeout=120_000
        )
        assert Image.open(io.BytesIO(page.download("#save")[1])).size == (8660, 5774)
        page.check()
        page.context.close()


def test_what_browsers_cannot_show_is_shown_and_saved(page: Page, tmp_path: Path) -> None:
    source = picture(tmp_path / "scan.tif")
    page.add(source)
    page.wait_result()
    assert page.tab.evaluate("document.getElementById('before').naturalWidth") == 120
    name, data = page.download("#save")
    assert name == "scan.tif"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(Image.open(source)))


def test_how_grainy_each_photo_is_is_found_out_and_said(page: Page, tmp_path: Path) -> None:
    page.choose("Grainy (conditioned)")
    noise = np.random.default_rng(0).normal(128, 20, (96, 96, 3)).clip(0, 255)
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "grain.png")
    page.add(tmp_path / "grain.png", picture(tmp_path / "smooth.png"))
    page.wait_rows(2)
    said = sorted(page.rows().locator(".state").all_text_contents())
    assert said == [
        "Done, 120 × 80 pixels, the original was hardly grainy",
        "Done, 96 × 96 pixels, the original was noticeably grainy",
    ]


def test_a_damaged_photo_says_so_and_the_others_go_on(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(picture(tmp_path / "a.jpg").read_bytes()[:500])
    page.add(tmp_path / "broken.jpg", picture(tmp_path / "fine.png"))
    page.wait_rows(1, ".failed")
    page.wait_rows(1, ".done")
    assert "damaged" in page.tab.text_content(".row.failed .state") or "cannot" in page.tab.text_content(
        ".row.failed .state"
    )
    assert "--" not in page.tab.text_content(".row.failed .state")
    page.rows(".done").locator(".open").click()
    page.wait_result()
    page.rows(".failed").locator(".open").click()  # and not the picture of the photo before it
    page.tab.wait_for_selector("#stage-wait:not([hidden])")
    assert page.tab.locator("#before[src], #after[src]").count() == 0
    page.expected = "422"  # the browser's own note
