"""The page in a browser, used as people use it: everything by mouse, keyboard, paste and drop, nothing from
elsewhere, nothing on the console."""

import io
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from PIL import Image, ImageOps
from serving_fixtures import GatedDnCNN, Served, gated_models, running

from restora.serving.limits import Limits

__all__ = ["browser"]
RNG = np.random.default_rng(3)


def picture(path: Path, width: int = 120, height: int = 80, **options: object) -> Path:
    """Smooth colours, so that a JPEG of it stays close to it."""
    y, x = np.mgrid[:height, :width]
    planes = (x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(path, **options)
    return path


class Page:
    """A tab with the server's page, watched."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        options.setdefault("viewport", {"width": 1200, "height": 900})
        self.context = browser.new_context(**options)
        self.tab = self.context.new_page()
        self.told: list[str] = []
        self.asked: set[str] = set()
        self.tab.on("console", lambda message: self.told.append(message.text))
        self.tab.on("pageerror", lambda error: self.told.append(str(error)))
        self.tab.on("request", lambda request: self.asked.add(request.url))
        self.tab.goto(served.url)
        self.tab.wait_for_selector(".card .example-after[src]", state="attached")
        self.url = served.url

    def add(self, *paths: Path) -> None:
        self.tab.set_input_files("#files", [str(path) for path in paths])

    def choose(self, title: str) -> None:
        self.tab.locator(".card", has_text=title).click()

    def rows(self, state: str = "") -> Any:
        return self.tab.locator(f".row{state}")

    def wait_rows(self, count: int, state: str = ".done") -> None:
        self.tab.wait_for_function(
            "([selector, count]) => document.querySelectorAll(selector).length === count",
            arg=[f".row{state}", count],
        )

    def wait_result(self) -> None:
        self.tab.wait_for_selector("#compare-tools:not([hidden])")
        self.tab.wait_for_function("() => document.getElementById('after').naturalWidth > 0")

    def download(self, selector: str) -> tuple[str, bytes]:
        with self.tab.expect_download() as waited:
            self.tab.click(selector)
        return waited.value.suggested_filename, Path(waited.value.path()).read_bytes()

    def stroke(self, *points: tuple[float, float]) -> None:
        """A line in shares of the photo's width and height."""
        box = self.tab.locator("#before").bounding_box()
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.tab.mouse.move(*at[0])
        self.tab.mouse.down()
        for point in at[1:]:
            self.tab.mouse.move(*point, steps=10)
        self.tab.mouse.up()

    def check(self) -> None:
        """Nothing was said on the console, and nobody else was asked."""
        assert self.told == []
        assert all(url.startswith((self.url, "blob:")) for url in self.asked), self.asked


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Page]:
    made = Page(browser, served)
    yield made
    made.check()
    made.context.close()


@pytest.fixture
def crowded(browser: Any) -> Iterator[tuple[Page, Served]]:
    """A page of a server whose tiles wait for the test and whose queue holds one photo."""
    GatedDnCNN.gate = threading.Semaphore(1 << 20)
    with running(gated_models(), Limits(queue=1)) as served:
        GatedDnCNN.gate = threading.Semaphore(0)
        made = Page(browser, served)
        yield made, served
        made.context.close()
        GatedDnCNN.gate.release(1 << 20)


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about within 10 s")


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
    assert "One file is no photo" in page.tab.text_content("#notice")
    assert page.tab.text_content("#count") == "5 of 5 done"
    name, data = page.download("#save-all")
    with zipfile.ZipFile(io.BytesIO(data)) as held:
        assert held.testzip() is None
        found = {"one.png", "two.png", "três.png", "album/four.jpg", "album/inner/four.jpg"}
        assert set(held.namelist()) == found
        back = np.asarray(Image.open(io.BytesIO(held.read("one.png"))))
    np.testing.assert_array_equal(back, np.asarray(Image.open(loose[0])))
    assert name == "restored.zip"


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
    assert page.tab.text_content("#count") == "0 of 4 done"
    assert all("429" in line for line in page.told)  # the browser notes on its console that it had to wait


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
        "() => document.querySelector('.row .state').textContent.includes('The server is busy: waiting')"
    )
    GatedDnCNN.gate.release(100)
    page.wait_rows(1)
    assert all("429" in line for line in page.told)


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
    image = Image.open(io.BytesIO(page.download("#save")[1]))
    assert (image.size, image.getexif()[0x0112]) == ((90, 60), 8)


def test_strength_is_what_is_seen_and_what_is_saved(page: Page, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    page.choose("Scratched or torn")
    page.add(source)
    page.tab.wait_for_function("() => document.getElementById('before').naturalWidth === 120")
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    page.tab.click("#invert")
    page.tab.click("#restore")
    page.wait_result()
    page.tab.locator("#strength").fill("50")
    assert page.tab.text_content("#strength-value") == "50%"
    saved = np.asarray(Image.open(io.BytesIO(page.download("#save")[1]))).astype(float)
    expected = np.asarray(Image.open(source)) * 0.5 + 32
    assert np.abs(saved - expected).max() <= 1
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


def test_two_tabs_do_not_know_of_each_other(browser: Any, served: Served, tmp_path: Path) -> None:
    first, second = Page(browser, served), Page(browser, served)
    first.add(*(picture(tmp_path / f"{index}.png") for index in range(3)))
    second.choose("Small")
    second.add(picture(tmp_path / "x.png"))
    first.wait_rows(3)
    second.wait_rows(1)
    assert second.tab.text_content(".row .state") == "Done, 240 × 160"
    assert set(first.rows().locator(".state").all_text_contents()) == {"Done, 120 × 80"}
    for page in (first, second):
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


def test_a_damaged_photo_says_so_and_the_others_go_on(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(picture(tmp_path / "a.jpg").read_bytes()[:500])
    page.add(tmp_path / "broken.jpg", picture(tmp_path / "fine.png"))
    page.wait_rows(1, ".failed")
    page.wait_rows(1, ".done")
    assert "damaged" in page.tab.text_content(".row.failed .state") or "cannot" in page.tab.text_content(
        ".row.failed .state"
    )
    assert "--" not in page.tab.text_content(".row.failed .state")
    page.told = [line for line in page.told if "422" not in line]  # the browser's own note


def test_photos_are_deleted_from_the_server_when_the_page_is_left(
    page: Page, served: Served, tmp_path: Path
) -> None:
    before = set(served.service.store.jobs)
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    assert len(set(served.service.store.jobs) - before) == 1
    page.tab.goto("about:blank")
    wait_for(lambda: set(served.service.store.jobs) <= before)


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 390), ("dark", 390), ("light", 1200), ("dark", 1200)]
)
def test_it_fits_and_can_be_read(
    browser: Any, served: Served, tmp_path: Path, scheme: str, width: int
) -> None:
    page = Page(browser, served, color_scheme=scheme, viewport={"width": width, "height": 844})
    tab = page.tab

    def check() -> None:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(UNLABELLED) == []
        poor = [row for row in tab.evaluate(CONTRAST) if row["ratio"] < 4.5]
        assert poor == []

    check()
    page.add(picture(tmp_path / "a long name of a photo that somebody took on a holiday.png"))
    page.wait_result()
    check()
    page.choose("Scratched or torn")
    page.add(picture(tmp_path / "b.png"))
    tab.wait_for_selector("#mask-tools:not([hidden])")
    check()
    small = tab.evaluate(
        "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 36).length"
    )
    assert small == 0
    page.check()
    page.context.close()


UNLABELLED = """[...document.querySelectorAll('button, input, select, [tabindex="0"]')]
  .filter(e => e.offsetParent && e.type !== 'file')
  .filter(e => !(e.getAttribute('aria-label') || e.labels?.length || e.innerText?.trim()))
  .map(e => e.outerHTML)"""
CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 10.3 ? v / 3295 : ((v / 255 + .055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const ground = (e) => {
    const colour = rgb(getComputedStyle(e).backgroundColor);
    return colour.length < 4 || colour[3] === 1 ? colour : ground(e.parentElement);
  };
  const texts = "h1, h2, p, a, button, label, output, .name, .state, .card-title, .card-text";
  return [...document.querySelectorAll(texts)]
    .filter(e => e.offsetParent && !e.disabled && e.innerText?.trim() && !e.closest(".stage, .skip"))
    .map(e => {
      const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
      return { text: e.innerText.slice(0, 40), ratio: (Math.max(a, b) + .05) / (Math.min(a, b) + .05) };
    });
})()"""


def test_a_token_is_asked_for_once(browser: Any, model_folders: dict[str, Path], tmp_path: Path) -> None:
    from restora.serving.models import load_models

    models = load_models([str(model_folders["denoise"])], device="cpu", precision="float32", tile=256)
    with running(models, Limits(), token="s3cret") as served:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(served.url)
        tab.wait_for_selector("#token-dialog[open]")
        tab.fill("#token", "s3cret")
        tab.keyboard.press("Enter")
        tab.wait_for_selector(".card")
        tab.set_input_files("#files", str(picture(tmp_path / "a.png")))
        tab.wait_for_selector(".row.done")
        context.close()
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(f"{served.url}/#token=s3cret")
        tab.wait_for_selector(".card")
        assert "s3cret" not in tab.url
        context.close()


def test_the_documentation_lists_every_route(browser: Any, served: Served) -> None:
    context = browser.new_context()
    tab = context.new_page()
    told: list[str] = []
    tab.on("console", lambda message: told.append(message.text))
    tab.goto(f"{served.url}/docs#full")
    tab.wait_for_selector("#full")
    text = tab.inner_text("main")
    for path in served.client.get("/openapi.json").json()["paths"]:
        assert path in text
    assert told == []
    context.close()


def test_the_page_is_small(repository: Path) -> None:
    files = [path for path in (repository / "src/restora/serving/page").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        if path.suffix in (".html", ".js", ".css"):
            outside = [
                url for url in re.findall(r"https?://[^\s\"'`)]+", path.read_text()) if "w3.org" not in url
            ]
            assert outside == [], path
