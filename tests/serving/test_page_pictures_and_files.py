"""Files that vanish, results that the server no longer has, metadata taken out late, times in the ZIP."""

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from page import Page, page, picture
from PIL import Image
from serving_fixtures import Served

__all__ = ["browser", "page"]


def test_a_file_that_vanishes_says_so_and_does_not_hold_up_the_others(page: Page, tmp_path: Path) -> None:
    gone = picture(tmp_path / "gone.png")
    page.add(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"), gone, picture(tmp_path / "c.png"))
    gone.unlink()
    page.wait_rows(3)
    page.wait_rows(1, ".failed")
    assert page.tab.text_content(".row.failed .state") == (
        "The file was moved, changed or deleted after it was added: please add it again"
    )
    page.rows(".failed").locator(".open").click()
    page.tab.wait_for_function(
        "() => document.getElementById('stage-text').textContent.includes('moved, changed or deleted')"
    )
    page.expected = "net::ERR_"


def test_metadata_is_left_out_of_a_result_that_was_restored_with_it(page: Page, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "Kodak Retina"
    page.add(picture(tmp_path / "a.jpg", exif=exif.tobytes()))
    page.wait_result()
    kept = page.download("#save")[1]
    assert dict(Image.open(io.BytesIO(kept)).getexif())[0x0110] == "Kodak Retina"
    page.tab.uncheck("#keep-metadata")
    for selector in ("#save", ".row-save"):
        assert 0x0110 not in Image.open(io.BytesIO(page.download(selector)[1])).getexif()
    page.tab.check("#keep-metadata")
    assert page.download("#save")[1] == kept


def test_a_photo_that_could_not_be_shown_is_shown_when_the_server_is_back(page: Page, tmp_path: Path) -> None:
    page.tab.route("**/v1/preview", lambda route: route.abort())
    page.add(picture(tmp_path / "scan.tif"))
    page.wait_rows(1)
    page.tab.wait_for_function(
        "() => document.getElementById('stage-text').textContent.includes('cannot be shown')"
    )
    page.tab.unroute("**/v1/preview")
    page.rows().locator(".open").click()
    page.wait_result()
    assert page.tab.evaluate("document.getElementById('before').naturalWidth") == 120
    page.expected = "net::ERR_"


def test_a_result_that_the_server_has_deleted_is_still_shown(
    page: Page, served: Served, tmp_path: Path
) -> None:
    page.choose("Small")
    page.add(picture(tmp_path / "a.png"), picture(tmp_path / "scan.tif"))
    page.wait_rows(2)
    for job in list(served.service.store.jobs.values()):
        served.client.delete(f"/v1/restorations/{job.id}")
    page.rows().nth(1).locator(".open").click()
    page.tab.wait_for_function("() => document.getElementById('after').naturalWidth === 240")
    assert page.tab.is_hidden("#stage-wait")
    page.expected = "404"


def test_files_in_the_zip_are_of_today(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "a.png"))
    page.wait_rows(1)
    with zipfile.ZipFile(io.BytesIO(page.download("#save-all")[1])) as archive:
        made = time.mktime((*archive.infolist()[0].date_time, 0, 0, -1))
    assert abs(time.time() - made) < 24 * 3600


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        ("a.JPG", "image/jpeg", "a.JPG"),
        ("a.jfif", "image/jpeg", "a.jfif"),
        ("really a png.jpg", "image/png", "really a png.png"),
        ("camera.dng", "image/tiff", "camera.tif"),
        ("phone.heic", "image/png", "phone.png"),
        ("trip/no.1 of 2", "image/jpeg", "trip/no.1 of 2.jpg"),
        ("v1.2/photo", "image/webp", "v1.2/photo.webp"),
    ],
)
def test_a_download_has_the_ending_of_what_is_in_it(page: Page, path: str, kind: str, name: str) -> None:
    made = page.tab.evaluate(
        """async ([path, type]) => (await import("/page/saving.js")).nameOf(path, new Blob([], { type }))""",
        [path, kind],
    )
    assert made == name


def test_names_in_the_zip_differ_on_every_system(page: Page) -> None:
    data = page.tab.evaluate(
        """async (names) => {
          const { zip } = await import("/page/zip.js");
          const made = await zip(names.map((name) => ({ name, blob: new Blob(["x"]) })));
          return [...new Uint8Array(await made.arrayBuffer())];
        }""",
        ["a.png", "A.PNG", "a-2.png", "caf\u00e9.png", "cafe\u0301.png"],
    )
    names = zipfile.ZipFile(io.BytesIO(bytes(data))).namelist()
    assert names == ["a.png", "A-2.PNG", "a-2-2.png", "caf\u00e9.png", "cafe\u0301-2.png"]


def test_a_transparent_photo_has_no_black_thumbnail(page: Page, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((80, 80, 4), np.uint8)).save(tmp_path / "clear.png")
    page.add(tmp_path / "clear.png")
    page.rows().scroll_into_view_if_needed()
    page.tab.wait_for_selector(".thumb img[src]")
    alpha: Any = page.tab.evaluate(
        """async () => {
            const picture = document.querySelector('.thumb img');
            await picture.decode();
            const context = new OffscreenCanvas(8, 8).getContext('2d');
            context.drawImage(picture, 0, 0, 8, 8);
            return context.getImageData(4, 4, 1, 1).data[3];
        }"""
    )
    assert alpha == 0


def test_what_is_not_in_the_zip_is_named(page: Page, tmp_path: Path) -> None:
    Image.new("RGBA", (120, 80), (200, 30, 30, 128)).save(tmp_path / "clear.png")
    page.add(tmp_path / "clear.png", picture(tmp_path / "b.png"))
    page.wait_rows(2)
    page.tab.select_option("#format", "jpeg")  # of the first, which is open
    data = page.download("#save-all")[1]
    assert zipfile.ZipFile(io.BytesIO(data)).namelist() == ["b.png"]
    said = page.tab.text_content("#notice")
    assert said.startswith("Not in the ZIP: clear.png (the result has transparency, which JPEG cannot hold")
    page.tab.click("#save")
    page.tab.wait_for_function(
        "() => document.getElementById('notice').textContent.startsWith('clear.png was not saved: the')"
    )
    page.expected = "422"


@pytest.mark.parametrize("strength", [1, 0.5, 0.2])
def test_a_transparent_result_is_seen_as_it_is_saved(page: Page, tmp_path: Path, strength: float) -> None:
    """Neither the original through it, nor the sum of two transparent pictures; on a chequered ground."""
    Image.new("RGBA", (120, 80), (200, 30, 30, 128)).save(tmp_path / "a.png")
    page.add(tmp_path / "a.png")
    page.wait_result()
    page.tab.locator("#strength").fill(str(100 * strength))
    assert page.tab.is_visible("#ground")
    shown = np.array(Image.open(io.BytesIO(page.tab.locator("#stage").screenshot())).convert("RGB"), int)
    rows, columns = shown.shape[:2]
    lines = slice(rows * 3 // 4, rows * 3 // 4 + 40)  # whole squares of the ground
    starts = (columns * 3 // 8, columns * 5 // 8)
    before, after = (shown[lines, start : start + 40].mean((0, 1)) for start in starts)
    assert np.abs(before - after).max() <= 2, (before, after)
    back = Image.open(io.BytesIO(page.download("#save")[1]))
    assert back.getpixel((60, 40)) == (200, 30, 30, 128)


def test_an_opaque_photo_has_no_chequered_ground(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    assert page.tab.is_hidden("#ground")
