"""A tab with the server's page, for tests that use it as people do."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import GatedDnCNN, Served, gated_models, running

from restora.serving.limits import Limits


def picture(path: Path, width: int = 120, height: int = 80, **options: object) -> Path:
    """Smooth colours, so that a JPEG of it stays close to it."""
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = x * 255 // width, y * 255 // height
    pixels[..., 2] = (x + y) * 255 // (width + height)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


class Page:
    """A tab with the server's page, watched."""

    def __init__(self, browser: Any, served: Served, **options: Any) -> None:
        options.setdefault("viewport", {"width": 1200, "height": 900})
        self.context = browser.new_context(**options)
        self.tab = self.context.new_page()
        self.console: list[str] = []
        self.expected = ""
        """Part of lines that the browser itself writes there, also late."""
        self.asked: set[str] = set()
        self.tab.on("console", lambda message: self.console.append(message.text))
        self.tab.on("pageerror", lambda error: self.console.append(str(error)))
        self.tab.on("request", lambda request: self.asked.add(request.url))
        self.tab.on("filechooser", lambda _: None)  # from now on, not a moment after it is asked
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

    def paint_nearly_all(self) -> None:
        """Paints the photo but for a corner on the lower left."""
        self.tab.click("#invert")
        self.tab.click("#eraser")
        self.stroke((0.03, 0.95), (0.05, 0.95))
        self.tab.click("#brush")

    def check(self) -> None:
        """Nothing was said on the console, and nobody else was asked."""
        assert [line for line in self.console if not self.expected or self.expected not in line] == []
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
