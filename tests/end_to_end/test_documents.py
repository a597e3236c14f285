"""What the documents say works: their commands run, and the site asks nobody for anything.

A block of commands after a line `<!-- tested -->` is run as it stands, in a folder with a few photos, where
`restora train` takes three steps (`debug=fast`) of the same run, without W&B. A block after
`<!-- file NAME -->` is written to that file first. Python after `<!-- tested python -->` runs too, and
asserts what the text says.
"""

import os
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm_start import run_module, shell_words

ROOT = Path(__file__).resolve().parents[2]
DOCS = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
]
RESTORA = """
restora() {
    if [ "$1" = train ]; then set -- "$@" debug=fast leakage.check=false logger.mode=disabled; fi
    WORDS "$@"
}
"""
TESTED = re.compile(r"<!-- tested -->\n```sh\n(.*?)```", re.S)
PYTHON = re.compile(r"<!-- tested python -->\n```python\n(.*?)```", re.S)
FILES = re.compile(r"<!-- file (\S+) -->\n```\w+\n(.*?)```", re.S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    y, x = np.mgrid[:260, :270]
    for place in ("photos", "pairs/clean", "pairs/degraded"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(1, 7):
            pixels = np.stack([x * 3 // 4 + 10 * number, y * 3 // 4 + 30, (x + y) // 4], -1).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / place / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    "page", [p for p in DOCS if TESTED.search(p.read_text("utf-8"))], ids=lambda p: p.stem
)
def test_its_commands_run(page: Path, folder: Path, shared_data_dir: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, content in FILES.findall(text):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    script = "\n".join(TESTED.findall(text))
    assert script.count("restora ") >= 1
    environment = {**os.environ, "RESTORA_DATA": str(shared_data_dir)}
    done = subprocess.run(
        ["bash", "-euxc", RESTORA.replace("WORDS", shell_words()) + script],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "page", [p for p in DOCS if PYTHON.search(p.read_text("utf-8"))], ids=lambda p: p.stem
)
def test_its_python_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for code in PYTHON.findall(page.read_text(encoding="utf-8")):
        exec(compile(code, str(page), "exec"), names)


def commands(page: Path) -> list[list[str]]:
    """The words of every restora command in the blocks and the sentences of a page, without comments."""
    text = page.read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"```(?:sh)?\n(.*?)```", text, re.S)).replace("\\\n", " ").splitlines()
    sentences = re.sub(r"```.*?```", "", text, flags=re.S)
    lines += [" ".join(code.split()) for code in re.findall(r"`(restora [a-z][^`]*)`", sentences)]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("restora ")]


@pytest.mark.parametrize("page", [p for p in DOCS if commands(p)], ids=lambda p: "-".join(p.parts[-2:]))
def test_its_other_commands_compose(page: Path) -> None:
    """What needs a data set, a GPU or days is not run: its keys and options exist."""
    from restora.cli import COMMANDS
    from restora.config import compose, jobs_of

    for command, *words in commands(page):
        assert command in COMMANDS
        own = any(
            word.startswith(("--plugin", "--config-dir", "resume=", "compare=", "poison=")) for word in words
        )
        if command in ("train", "bench", "evaluate", "prepare", "preview") and not own:
            typed = [word for word in words if re.match(r"[\w@./+]+=", word) and "=NAME" not in word]
            compose("train" if command == "bench" else command, jobs_of(typed)[0])


def test_every_command_and_link_of_the_readme_exists() -> None:
    from restora.cli import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^restora +(\w+)", text, re.M)) == set(COMMANDS) - {"networks"}
    assert "`restora networks`" in text
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert len(text.splitlines()) <= 60, "one screen"


class Assets(HTMLParser):
    """What a browser loads by itself: everything but links that a reader follows."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            self.found += [value for key, value in attrs if key in ("src", "href", "srcset") and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    words = ["build", "--strict", "--quiet", "--site-dir", folder]
    done = run_module("mkdocs", *words, cwd=ROOT, timeout=900, merged=True, NO_MKDOCS_2_WARNING="1")
    assert done.returncode == 0, done.stdout
    return folder


def test_the_site_builds_and_asks_nobody(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 15
    for page in pages:
        assets = Assets()
        assets.feed(page.read_text(encoding="utf-8"))
        assert assets.found
        assert [link for link in assets.found if re.match(r"(https?:)?//", link)] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", sheet.read_text(encoding="utf-8")), sheet
    configuration = (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    for group in ("objective", "trainer", "benchmark/testset"):
        assert f'id="{group.replace("/", "")}"' in configuration
    assert "Restorer" in (site / "reference" / "python.html").read_text(encoding="utf-8")
    for page, row in (("networks", "<code>dncnn_b</code>"), ("reference/experiments", "denoise/dncnn_gray")):
        assert row in (site / f"{page}.html").read_text(encoding="utf-8")


def test_the_site_is_searched_without_a_server(site: Path) -> None:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no Chromium (apt-get install chromium)")
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "concepts.html").as_uri())
        page.click(".md-search__input")
        page.keyboard.type("bootstrap")
        page.wait_for_selector(".md-search-result__item", timeout=20_000)
        assert "Intervals" in page.inner_text(".md-search-result__list")
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        browser.close()
