"""The page fits, can be read, asks for its token, and keeps people apart."""

import re
from pathlib import Path
from typing import Any

import pytest
from browser import browser
from page import Page, page, picture, wait_for
from serving_fixtures import Served, running

from restora.serving.limits import Limits

__all__ = ["browser", "page"]


def test_two_tabs_do_not_know_of_each_other(browser: Any, served: Served, tmp_path: Path) -> None:
    first, second = Page(browser, served), Page(browser, served)
    first.add(*(picture(tmp_path / f"{index}.png") for index in range(3)))
    second.choose("Small")
    second.add(picture(tmp_path / "x.png"))
    first.wait_rows(3)
    second.wait_rows(1)
    assert second.tab.text_content(".row .state") == "Done, 240 × 160 pixels"
    assert set(first.rows().locator(".state").all_text_contents()) == {"Done, 120 × 80 pixels"}
    for tab in (first, second):
        tab.check()
        tab.context.close()


def test_grain_is_estimated_from_each_photo_or_given(page: Page, served: Served, tmp_path: Path) -> None:
    before = set(served.service.store.jobs)
    page.choose("Grainy (conditioned)")
    slider = page.tab.locator("#sigma")
    assert slider.is_disabled()
    page.add(picture(tmp_path / "a.png"))
    page.wait_rows(1)
    page.tab.get_by_label("detect automatically").uncheck()
    assert slider.is_enabled()
    assert page.tab.text_content("#sigma-word") == "noticeably"
    page.add(picture(tmp_path / "b.png"))
    page.wait_rows(2)
    jobs = [job for key, job in served.service.store.jobs.items() if key not in before]
    assert [job.options.sigma for job in jobs] == ["auto", 25.0]


def test_an_example_is_shown_when_it_has_come(browser: Any, served: Served) -> None:
    """Until then the browser would show the sign of a broken picture."""
    context = browser.new_context()
    tab, held, errors = context.new_page(), list[Any](), list[str]()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.route("**/example?side=*", lambda route: held.append(route))
    tab.goto(served.url)
    first = tab.locator(".example").first
    first.locator(".example-after").wait_for(state="attached")
    wait_for(lambda: tab.wait_for_timeout(20) or len(held) >= 2)
    assert first.is_visible()
    assert not first.locator("img").first.is_visible()
    for route in held[:2]:
        route.continue_()
    first.locator(".example-after").wait_for(state="visible")
    for route in held[2:]:
        route.abort()
    tab.locator(".example").nth(1).wait_for(state="hidden")
    assert errors == []
    context.close()


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


def test_what_is_chosen_is_seen_in_chosen_colours_and_heard(
    browser: Any, served: Served, tmp_path: Path
) -> None:
    """A system of high contrast replaces all colours; a screen reader sees none."""
    page = Page(browser, served, forced_colors="active")
    looks = (
        "e => { const s = getComputedStyle(e); return s.borderTopColor + s.outlineStyle + s.outlineColor; }"
    )
    page.add(picture(tmp_path / "a.png"), picture(tmp_path / "b.png"))
    page.wait_rows(2)
    page.rows().nth(1).locator(".open").click()
    opens = page.tab.locator(".open")
    assert [opens.nth(n).get_attribute("aria-current") for n in (0, 1)] == ["false", "true"]
    assert page.rows().nth(0).evaluate(looks) != page.rows().nth(1).evaluate(looks)
    chosen = page.tab.locator(".card:has(:checked)")
    assert chosen.evaluate(looks) != page.tab.locator(".card:not(:has(:checked))").first.evaluate(looks)
    page.choose("Scratched or torn")
    page.add(picture(tmp_path / "c.png"))
    page.tab.wait_for_selector("#mask-tools:not([hidden])")
    assert page.tab.locator("#brush").evaluate(looks) != page.tab.locator("#eraser").evaluate(looks)
    page.check()
    page.context.close()


def test_messages_are_in_sight_and_move_nothing(page: Page, tmp_path: Path) -> None:
    page.add(*(picture(tmp_path / f"{index}.png") for index in range(9)))
    page.wait_rows(9)
    page.tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    (tmp_path / "notes.txt").write_text("x")
    place = page.tab.locator("#save-all").bounding_box()
    page.add(tmp_path / "notes.txt")
    page.tab.wait_for_selector("#notice:not([hidden])")
    box = page.tab.locator("#notice").bounding_box()
    assert 0 <= box["y"] <= 900 - box["height"]
    assert page.tab.locator("#save-all").bounding_box() == place


def test_nothing_is_cut_off_on_a_narrow_phone(browser: Any, served: Served, tmp_path: Path) -> None:
    page = Page(browser, served, viewport={"width": 320, "height": 568})
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    box = page.tab.locator("#format").bounding_box()
    assert box["x"] + box["width"] <= 320
    page.check()
    page.context.close()


def test_the_open_photo_is_what_is_printed(page: Page, tmp_path: Path) -> None:
    page.add(picture(tmp_path / "a.png"))
    page.wait_result()
    page.tab.emulate_media(media="print")
    assert page.tab.is_visible("#after")
    for hidden in ("#before", "#models", "#save", "#photos", "#divider"):
        assert page.tab.is_hidden(hidden), hidden


def test_on_a_phone_the_chosen_model_stays_in_sight(browser: Any, served: Served, tmp_path: Path) -> None:
    page = Page(browser, served, viewport={"width": 390, "height": 844})
    tab = page.tab
    tab.locator("#models .card").last.click()
    page.add(picture(tmp_path / "a.png"))
    line, card = (tab.locator(at).bounding_box() for at in ("#models", "#models .card:has(:checked)"))
    assert tab.evaluate("document.getElementById('models').scrollWidth") > 390, "all cards fit anyway"
    assert line["x"] <= card["x"]
    assert card["x"] + card["width"] <= line["x"] + line["width"]
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_wrong_address_is_a_page_that_leads_back(browser: Any, served: Served, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": 320, "height": 568})
    tab = context.new_page()
    answer = tab.goto(f"{served.url}/no<b>such</b>{'page' * 30}")
    assert answer.status == 404
    assert tab.inner_text("h2") == "There is no such page"
    assert "There is nothing at /no<b>such</b>page" in tab.inner_text("main")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 320
    assert [row for row in tab.evaluate(CONTRAST) if row["ratio"] < 4.5] == []
    tab.goto(f"{served.url}/v1/restorations/nobody/photo")
    assert tab.inner_text("h2") == "This photo is no longer here"
    tab.click("text=Restore photos")
    tab.wait_for_selector(".card")
    context.close()


def test_the_documentation_lists_every_route(browser: Any, served: Served) -> None:
    context = browser.new_context()
    tab = context.new_page()
    messages: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.goto(f"{served.url}/docs#full")
    tab.wait_for_selector("#full")
    text = tab.inner_text("main")
    for path in served.client.get("/openapi.json").json()["paths"]:
        assert path in text
    assert messages == []
    rows = [" ".join(row.split()) for row in tab.locator("#routes tr").all_inner_texts()]
    for start in (
        "wait query number from 0 to 3600; default: 0",
        "side query before, after; default: after",
        "idempotency-key header string of at most 200 characters",
        "photo form, required file",
        "strength form number from 0 to 1; default: 1",
        "sigma form number from 0 to 255 or auto",
        "quality query integer from 1 to 100",
    ):
        assert any(row.startswith(start) for row in rows), rows
    fields = " ".join(tab.inner_text("#JobState table").split())
    for field in (
        "state waiting, running, done, failed, cancelled",
        "photo JobPhoto",
        "position integer or null",
    ):
        assert field in fields
    links = "[...document.querySelectorAll('main a[href^=\"#\"]')].map(e => e.getAttribute('href').slice(1))"
    assert all(tab.evaluate(f"{links}.map(id => Boolean(document.getElementById(id)))"))
    assert tab.locator("#bad-request td").last.inner_text().endswith("(Allow names the methods)")
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
