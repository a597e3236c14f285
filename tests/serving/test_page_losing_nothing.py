"""On the page nothing is lost: early photos, results that are not saved, results while painting anew."""

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import browser
from page import Page, crowded, page, picture, wait_for
from PIL import Image
from serving_fixtures import Served, running

from restora.serving.limits import Limits
from restora.serving.models import load_models

__all__ = ["browser", "crowded", "page"]


def test_photos_that_come_before_the_models_are_added_with_them(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    context = browser.new_context()
    tab = context.new_page()
    go_on = threading.Event()
    tab.route("**/v1/models", lambda route: route.continue_() if go_on.is_set() else route.abort())
    tab.goto(served.url)
    tab.wait_for_selector("#notice:not([hidden])")
    tab.set_input_files("#files", [str(picture(tmp_path / "a.png")), str(picture(tmp_path / "b.png"))])
    tab.wait_for_function(
        "() => document.getElementById('notice').textContent.includes('2 photos are added')"
    )
    assert tab.locator(".row").count() == 0
    go_on.set()
    tab.wait_for_function("() => document.querySelectorAll('.row.done').length === 2")
    assert tab.is_hidden("#notice")
    context.close()


def asks(page: Page) -> bool:
    """Whether leaving asks first; the answer is to stay."""
    asked: list[str] = []

    def dismiss(dialog: Any) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.tab.on("dialog", dismiss)
    page.tab.evaluate("() => { setTimeout(() => { location.href = '/docs' }, 0) }")
    for _ in range(50):
        page.tab.wait_for_timeout(100)
        if asked or page.tab.url.endswith("/docs"):
            break
    page.tab.remove_listener("dialog", dismiss)
    return asked == ["beforeunload"]


def test_leaving_asks_until_the_result_is_saved(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    page.tab.click("#viewer-title")  # browsers ask only for pages that were used
    assert asks(page)
    assert page.rows(".done").count() == 1
    page.download("#save")
    assert not asks(page)


def test_leaving_does_not_ask_after_all_results_are_saved_at_once(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"))
    page.wait_rows(2)
    page.download("#save-all")
    page.tab.wait_for_function("() => !document.getElementById('save-all').disabled")
    assert not asks(page)


def test_clearing_the_list_asks_until_the_results_are_saved(page: Page, tmp_path: Path) -> None:
    asked: list[str] = []
    page.tab.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.add(picture(tmp_path / "a.png"))
    page.wait_rows(1)
    page.tab.click("#remove-all")
    assert asked == ["1 photo is not finished or not downloaded. Clear the list anyway?"]
    assert page.rows().count() == 1
    page.download("#save-all")
    page.tab.click("#remove-all")
    assert (len(asked), page.rows().count()) == (1, 0)


def test_the_page_for_developers_opens_beside_this_one(page: Page) -> None:
    with page.context.expect_page() as opened:
        page.tab.click("text=For developers")
    opened.value.wait_for_selector("#codes tr")
    assert page.tab.url.rstrip("/") == page.url


def painting(page: Page, source: Path, width: int = 120) -> None:
    page.choose("Scratched or torn")
    page.add(source)
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    page.tab.wait_for_function(f"() => document.getElementById('before').naturalWidth === {width}")


def test_a_photo_that_waits_for_paint_is_restored_by_another_model(page: Page, tmp_path: Path) -> None:
    painting(page, picture(tmp_path / "a.png"))
    assert page.tab.is_hidden("#again")
    assert page.tab.is_hidden("#save")
    assert float(page.tab.evaluate("document.getElementById('total').value")) == 0
    page.choose("Small")
    assert page.tab.text_content("#again") == "Restore as “small, ×2”"
    assert page.tab.is_hidden("#save")
    page.tab.click("#again")
    page.wait_result()
    assert page.rows().locator(".state").text_content() == "Done, 240 × 160 pixels"
    assert float(page.tab.evaluate("document.getElementById('total').value")) == 1


def test_a_result_is_kept_while_its_photo_is_painted_anew(page: Page, tmp_path: Path) -> None:
    source = picture(tmp_path / "a.png")
    page.choose("Grainy (denoise)")
    page.add(source)
    page.wait_result()
    page.choose("Scratched or torn")
    page.tab.click("#again")
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    assert page.download(".row-save")[0] == "a.png"
    page.tab.click("#back")
    page.wait_result()
    assert page.tab.is_hidden("#mask-tools")
    saved = np.asarray(Image.open(io.BytesIO(page.download("#save")[1])))
    np.testing.assert_array_equal(saved, np.asarray(Image.open(source)))
    page.tab.click("#again")
    page.paint_nearly_all()
    page.tab.click("#restore")
    page.tab.wait_for_selector("#paint-again:not([hidden])")
    page.wait_result()
    assert (np.asarray(Image.open(io.BytesIO(page.download("#save")[1]))) == 64).mean() > 0.9
    page.tab.click("#paint-again")
    page.tab.wait_for_selector("#back:not([hidden])")
    assert page.tab.text_content("#count") == "0 of 1 done"
    assert float(page.tab.evaluate("document.getElementById('total').value")) == 0
    with_all = page.download("#save-all")[1]
    assert b"a.png" in with_all


def test_the_mask_stays_with_its_photo_when_another_one_is_opened(page: Page, tmp_path: Path) -> None:
    painting(page, picture(tmp_path / "a.png"))
    page.add(picture(tmp_path / "b.png"))
    page.wait_rows(2, ".paint")
    page.paint_nearly_all()
    page.tab.evaluate(
        """() => {
          document.getElementById("restore").click();
          document.querySelectorAll(".row .open")[1].click();
        }"""
    )
    page.wait_rows(1)
    states = page.tab.evaluate("[...document.querySelectorAll('.row')].map((row) => row.classList[1])")
    assert states == ["done", "paint"]


def mask_file(path: Path, size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> str:
    mask = Image.new("L", size, 0)
    if box is not None:
        mask.paste(255, box)
    mask.save(path)
    return str(path)


def test_a_mask_that_does_not_fit_or_marks_nothing_is_refused(page: Page, tmp_path: Path) -> None:
    painting(page, picture(tmp_path / "a.png"))
    tab = page.tab

    def load(size: tuple[int, int], box: tuple[int, int, int, int] | None = None) -> None:
        tab.set_input_files("#mask-file", mask_file(tmp_path / "mask.png", size, box))

    load((120, 80))
    tab.wait_for_function(
        "() => document.getElementById('notice').textContent.includes('No pixel of this mask')"
    )
    load((80, 120), (0, 0, 40, 40))
    tab.wait_for_function("() => document.getElementById('notice').textContent.includes('80 × 120 pixels')")
    assert tab.is_disabled("#restore")
    load((60, 40), (10, 10, 20, 20))  # of the same shape
    tab.wait_for_function("() => !document.getElementById('restore').disabled")
    shown = "document.getElementById('mask').getContext('2d').getImageData(30, 30, 1, 1).data"
    assert tab.evaluate(f"[...{shown}]") == [255, 45, 111, 255]
    tab.click("#restore")
    page.wait_result()
    after = np.asarray(Image.open(io.BytesIO(page.download("#save")[1])))
    assert (after[20:40, 20:40] == 64).all()
    assert not (after[:18] == 64).all(-1).any()


def test_what_is_erased_or_inverted_away_is_not_restored(page: Page, tmp_path: Path) -> None:
    painting(page, picture(tmp_path / "a.png"))
    page.tab.click("#invert")
    page.tab.wait_for_function("() => !document.getElementById('restore').disabled")
    page.tab.click("#invert")
    assert page.tab.is_disabled("#restore")
    page.stroke((0.4, 0.5), (0.6, 0.5))
    assert page.tab.is_enabled("#restore")
    page.tab.click("#eraser")
    page.tab.locator("#brush-size").fill("60")
    page.stroke((0.3, 0.5), (0.7, 0.5))
    assert page.tab.is_disabled("#restore")


def test_a_photo_that_is_painted_everywhere_is_not_sent(page: Page, tmp_path: Path) -> None:
    painting(page, picture(tmp_path / "a.png"))
    page.tab.click("#invert")
    page.tab.click("#restore")
    assert "erase some of the paint" in page.tab.text_content("#notice")
    assert page.rows(".paint").count() == 1


def test_the_stage_says_which_keys_it_takes(page: Page, tmp_path: Path) -> None:
    painting(page, picture(tmp_path / "a.png"))
    assert "Enter paints" in page.tab.get_attribute("#stage", "aria-label")
    assert "Enter paints" in page.tab.inner_text(".paint-hint")
    page.paint_nearly_all()
    page.tab.click("#restore")
    page.wait_result()
    assert "space bar" in page.tab.get_attribute("#stage", "aria-label")


def test_a_tiny_photo_is_larger_than_the_handle_over_it(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "tiny.png", 5, 3))
    page.wait_result()
    box, handle = (page.tab.locator(at).bounding_box() for at in ("#after", "#divider span"))
    assert box["width"] >= 200
    assert box["width"] * box["height"] > 10 * handle["width"] * handle["height"]
    page.tab.click("#zoom-in")
    assert page.tab.locator("#after").bounding_box()["width"] >= box["width"]


def test_heic_that_the_server_cannot_read_says_what_a_person_can_do(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)  # importing it fails
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(400))
    page.add(tmp_path / "a.heic")
    page.wait_rows(1, ".failed")
    said = page.rows().locator(".state").text_content()
    assert said == "The photo is HEIC, which this server cannot read: save it as JPEG and try again"
    page.tab.wait_for_selector("#stage-wait:not([hidden])")
    assert "pip" not in page.tab.inner_text("body")
    page.expected = "415"


def test_a_wrong_token_is_named_and_the_dialog_can_be_left(
    browser: Any, model_folders: dict[str, Path]
) -> None:
    models = load_models([str(model_folders["denoise"])], device="cpu", precision="float32", tile=256)
    with running(models, Limits(), token="s3cret") as served:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(served.url)
        tab.wait_for_selector("#token-dialog[open]")
        assert tab.is_hidden("#token-refused")
        for wrong in ("wrong", "пароль"):
            tab.keyboard.type(wrong)
            tab.keyboard.press("Enter")
            tab.wait_for_selector("#token-refused:not([hidden])")
            tab.wait_for_selector("#token-dialog[open]")
        tab.keyboard.press("Escape")
        tab.wait_for_selector("#enter-token:not([hidden])")
        time.sleep(1.5)
        assert tab.locator("#token-dialog[open]").count() == 0
        assert "Without an access token" in tab.text_content("#notice")
        tab.click("#enter-token")
        tab.wait_for_selector("#token-dialog[open]")
        tab.keyboard.type("s3cret")  # over the wrong one, which is selected
        tab.keyboard.press("Enter")
        tab.wait_for_selector(".card")
        assert tab.is_hidden("#notice")
        context.close()


def test_a_server_that_is_gone_is_named_while_a_photo_is_running(
    crowded: tuple[Page, Served], tmp_path: Path
) -> None:
    page, _ = crowded
    state = "() => document.querySelector('.row .state').textContent"
    page.add(picture(tmp_path / "a.png"))
    page.wait_rows(1, ".running")
    page.context.set_offline(True)
    page.tab.wait_for_function(f"{state}.startsWith('The server cannot be reached')")
    page.context.set_offline(False)
    page.tab.wait_for_function(f"{state}.startsWith('Restoring')")


@pytest.mark.parametrize("lost", ["the job's address", "the state", "the result"])
def test_an_answer_that_is_lost_costs_no_second_restoration(
    page: Page, served: Served, tmp_path: Path, lost: str
) -> None:
    cut: list[str] = []
    session = page.context.new_cdp_session(page.tab)

    def answered(event: Any) -> None:
        request = {"requestId": event["requestId"]}
        if cut:
            session.send("Fetch.continueRequest", request)
        else:
            cut.append(event["request"]["url"])
            session.send("Fetch.failRequest", request | {"errorReason": "ConnectionReset"})

    tails = {"the job's address": "", "the state": "/????????????????", "the result": "/*/photo*"}
    pattern = {"urlPattern": f"*/v1/restorations{tails[lost]}", "requestStage": "Response"}
    session.on("Fetch.requestPaused", answered)
    session.send("Fetch.enable", {"patterns": [pattern]})
    done = served.service.worker.finished_by_state["done"]
    page.add(picture(tmp_path / "a.png"))
    page.wait_rows(1)
    assert len(cut) == 1
    assert served.service.worker.finished_by_state["done"] == done + 1
    page.expected = "net::ERR_"


def test_a_photo_is_restored_anew_when_that_is_asked_for(page: Page, served: Served, tmp_path: Path) -> None:
    done = served.service.worker.finished_by_state["done"]
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    page.tab.click("#again")
    wait_for(lambda: served.service.worker.finished_by_state["done"] == done + 2)
    page.wait_rows(1)
