"""The report as a whole: the table, the photos, and a page that works by itself."""

import base64
import io
import json
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest
from PIL import Image
from run_folders import HOSTILE, one_group, put, record, write_run

from restora.apps.report import main
from restora.cli import main as cli
from restora.evaluation.classical import BASELINES
from restora.photos.blocks import png_chunk
from restora.photos.header import PNG_SIGNATURE
from restora.reporting.photos import embedded_photos, left_out


def test_the_command_prints_the_leaderboard_and_writes_the_page(sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(sweep), "--baselines"]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    table = [line for line in lines if re.match(r"\s*(\d=?)?\s+\S.*\d+\.\d\d", line)]
    assert [line.split()[1] for line in table if line.lstrip()[0].isdigit()] == ["nafnet", "unet", "dncnn"]
    names = " ".join(table)
    assert all(name.replace("_", " ") in names for name in (*BASELINES, "degraded_input"))
    assert "best classical filter" in printed
    assert "gan (failed)" in printed
    assert "4_cut" in printed
    assert str(sweep / "report.html") in printed.replace("\n", "")
    assert max(map(len, table)) <= 80


def test_runs_of_several_folders_are_one_comparison(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, name in (("a/x", "edsr"), ("b/y", "unet"), ("c/z", "rcan")):
        put(tmp_path / place, name=name)
    assert cli(["report", "a", "b/y", "a/x", "--data", "runs.csv"]) == 0
    assert "page: report.html" in capsys.readouterr().out
    page, table = (tmp_path / "report.html").read_text(), (tmp_path / "runs.csv").read_text()
    assert "restora: a, y, x" in page
    assert page.count("<dt>") == 2  # each run once
    assert {row.split(",")[2] for row in table.splitlines()[1:]} == {"a/x", "b/y"}
    (tmp_path / "empty").mkdir()
    assert cli(["report", "a", "empty"]) == 2
    assert "below empty" in capsys.readouterr().err


def test_the_reason_of_a_failure_is_one_line(sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    long = "\n".join(["RuntimeError: shapes differ", *["tensor([0.1, 0.2])"] * 60])
    (sweep / "3_gan" / "run.json").write_text(
        json.dumps(record(status="failed", error=long, test=None, name="gan"))
    )
    assert cli(["report", str(sweep)]) == 0
    printed = capsys.readouterr().out
    assert "failed: gan: RuntimeError: shapes differ\n" in printed
    assert "tensor" not in printed
    assert "tensor([0.1" not in (sweep / "report.html").read_text()


def test_of_many_runs_that_failed_alike_the_first_are_named(sweep, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for number in range(8):
        for status in ("failed", "stopped"):
            put(sweep / f"{status}{number}", status=status, error="out of memory", test=None, name=status)
    assert cli(["report", str(sweep)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("failed: ") for line in lines) == 6
    assert "failed: 4 more, which the page lists" in lines  # one is the sweep's own
    assert "stopped: 3 more, which the page lists" in lines
    assert (sweep / "report.html").read_text().count("<code>out of memory</code>") == 16


def test_the_page_asks_for_nothing_from_outside_and_quotes_what_it_shows(sweep):
    assert main([str(sweep), "--output", str(sweep.parent / "pages" / "my.html")]) == 0
    page = (sweep.parent / "pages" / "my.html").read_text()
    assert not re.search(r"""<(link|script|img|iframe)[^>]+(src|href)=["'](?!data:)""", page)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert HOSTILE not in page
    assert "&lt;/script&gt;" in page
    assert [path.name for path in (sweep.parent / "pages").iterdir()] == ["my.html"]


def test_embedded_photos_are_the_files_without_loss(sweep):
    (first, second) = embedded_photos(one_group(sweep))
    assert (first["name"], first["width"], first["height"], first["note"]) == ("astronaut", 84, 60, "")
    labels = ["degraded", "nafnet", "unet", "dncnn", "original"]
    assert [version["label"] for version in first["versions"]] == labels
    assert first["versions"][1]["psnr"] == 29.5
    for version, path in (
        (first["versions"][1], sweep / "1_nafnet" / "images" / "astronaut_restored.png"),
        (second["versions"][-1], sweep / "0_dncnn" / "images" / "coffee_clean.png"),
    ):
        data = base64.b64decode(version["uri"].partition(",")[2])
        shown, file = (np.asarray(Image.open(source).convert("RGB")) for source in (io.BytesIO(data), path))
        np.testing.assert_array_equal(shown, file)


def test_of_a_large_photo_the_middle_is_shown_at_every_scale(sweep):
    """A x2 run: the degraded photo is half as large, and the same part of it is taken."""
    rows, columns = np.mgrid[0:900, 0:1300]
    clean = np.stack([rows % 256, columns % 256, (rows // 256) * 16 + columns // 256], axis=-1).astype(
        np.uint8
    )
    for run in sweep.glob("*_*/images"):
        Image.fromarray(clean).save(run / "astronaut_clean.png")
        Image.fromarray(clean).save(run / "astronaut_restored.png")
        Image.fromarray(clean[::2, ::2]).save(run / "astronaut_degraded.png")
    shown = embedded_photos(one_group(sweep))[0]
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(version["uri"].partition(",")[2]))).convert("RGB"))
        for version in shown["versions"]
    ]
    assert (shown["width"], shown["height"], shown["note"]) == (512, 512, "middle 512×512 of 1300×900")
    np.testing.assert_array_equal(pictures[-1], clean[194:706, 394:906])
    np.testing.assert_array_equal(pictures[0], pictures[-1][::2, ::2])


def test_a_page_of_many_comparisons_shows_fewer_photos_of_each(sweep, monkeypatch):
    group = one_group(sweep)
    shown = embedded_photos(group)
    assert [len(photo["versions"]) for photo in shown] == [5, 5]  # three runs
    assert left_out(group) == ""
    shown = embedded_photos(group, groups=40)
    assert [len(photo["versions"]) for photo in shown] == [4]
    assert left_out(group, groups=40).startswith("Here are 1 of 2 photos and the best 2 of 3 runs;")
    monkeypatch.setattr("restora.reporting.photos.PHOTOS_AT_MOST", 1)
    assert main([str(sweep)]) == 0
    assert "Here are 1 of 2 photos; " in (sweep / "report.html").read_text()


@pytest.mark.parametrize(
    "header", [b"", b"\0\0\0\1\0\0", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)]
)
def test_missing_and_damaged_photos_are_left_out(sweep, header):
    damaged = PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")
    (sweep / "1_nafnet" / "images" / "astronaut_restored.png").write_bytes(damaged)
    (sweep / "2_unet" / "images" / "astronaut_restored.png").unlink()
    shown = embedded_photos(one_group(sweep))
    assert [version["label"] for version in shown[0]["versions"]] == ["degraded", "dncnn", "original"]
    for path in sweep.glob("*/images/coffee_clean.png"):
        path.unlink()
    assert len(embedded_photos(one_group(sweep))) == 1


def test_folders_without_runs_are_named(tmp_path):
    with pytest.raises(ValueError, match="no run folders"):
        main([str(tmp_path)])
    with pytest.raises(ValueError, match="no folder"):
        main([str(tmp_path / "nowhere")])


def test_only_broken_runs_still_make_a_page(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "run.json").write_text("{")
    assert main([str(tmp_path)]) == 0
    assert "left out" in capsys.readouterr().out
    assert "run.json cannot be read" in (tmp_path / "report.html").read_text()


PROBE = """
<script>
const seen = {};
const plots = [...document.querySelectorAll(".plot")];
seen.plots = plots.map((plot) => plot.querySelectorAll("path.point, .trace").length > 0);
seen.tiles = document.querySelectorAll(".tile").length;
const names = () => [...document.querySelectorAll(".leaderboard tbody th")].map((cell) => cell.dataset.value);
seen.before = names();
document.querySelectorAll(".leaderboard thead th")[0].click();
seen.after = names();
document.querySelector('[data-plot="cost"] [data-x="fit"]').click();
seen.axis = document.querySelector(".plot.cost .xtitle").textContent;
const right = document.querySelectorAll(".bar-of-controls select")[2];
right.value = "clean";
right.dispatchEvent(new Event("change"));
seen.tag = document.querySelector(".tag.right").textContent;
const slider = document.querySelector(".stage input");
slider.value = 25;
slider.dispatchEvent(new Event("input"));
seen.clip = document.querySelector(".view .over").style.clipPath;
const pictures = [...document.querySelectorAll(".tile img")];
const widths = () => pictures.map((image) => parseFloat(image.style.width));
const four = widths();
const buttons = [...document.querySelectorAll(".bar-of-controls button")];
buttons.find((button) => button.textContent === "8×").click();
seen.doubled = widths().every((width, i) => Math.abs(width / four[i] - 2) < 1e-6);
seen.pictures = pictures.every((image) => image.complete && image.naturalWidth === 84);
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify(seen);
document.body.replaceChildren(result);
</script>
"""


def in_browser(root, probe, width):
    """What the probe finds in the page, in headless Chromium without a network."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    page = (root / "report.html").read_text().replace("</body>", probe + "</body>")
    (root / "probe.html").write_text(page)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"]
    flags += [f"--window-size={width},2000", f"--user-data-dir={root / 'profile'}"]
    done = subprocess.run(
        [browser, *flags, (root / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    assert "Uncaught" not in done.stderr
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.slow
def test_the_page_works_in_a_browser(sweep):
    """Plots are drawn, the table sorts, the photo bench compares."""
    main([str(sweep), "--baselines"])
    seen = in_browser(sweep, PROBE, 1280)
    assert seen["plots"] == [True, True]
    assert seen["tiles"] == 5
    assert [name for name in seen["before"] if name in ("dncnn", "nafnet", "unet")] == [
        "nafnet",
        "unet",
        "dncnn",
    ]
    assert seen["after"] == sorted(seen["before"], key=str.casefold)
    assert seen["axis"] == "training time (s)"
    assert seen["tag"] == "original"
    assert seen["clip"] == "inset(0px 75% 0px 0px)"
    assert seen["doubled"]
    assert seen["pictures"]


NAMES_PROBE = """
<script>
const seen = {};
const box = document.querySelector(".leaderboard").parentNode.getBoundingClientRect();
const shown = (cell) => {
  const place = cell.getBoundingClientRect();
  return place.left >= box.left && place.right <= Math.min(box.right, window.innerWidth);
};
seen.psnr = [...document.querySelectorAll(".leaderboard td.bar")].map(shown);
seen.names = [...document.querySelectorAll(".leaderboard tbody th")].map((cell) => cell.innerText.trim());
document.querySelectorAll(".leaderboard thead th")[3].click(); // best first
const order = () => [...document.querySelectorAll(".leaderboard tbody tr")].map((row) => row.className);
document.querySelectorAll(".leaderboard thead th")[3].click(); // worst first
seen.order = order();
const result = document.createElement("pre");
result.id = "seen";
result.textContent = JSON.stringify(seen);
document.body.replaceChildren(result);
</script>
"""


@pytest.mark.slow
def test_the_scores_of_a_sweep_over_many_keys_are_seen(tmp_path):
    """At 1,400 pixels; and seeds stay with their method, however the table is sorted."""
    generator = np.random.default_rng(0)
    for job in range(16):
        words = [
            f"network.depth={9 + job // 2}",
            f"family.optimizer.lr={(job // 2 + 1) / 3000:.8f}",
            f"data.patch_size={32 + job // 2}",
            f"schedule@family.schedule={'multi_step' if job // 2 % 2 else 'constant'}",
            f"data.source.root=/home/somebody/photos/of/the/year/{2000 + job // 2}/raw",
            f"seed={job % 2}",
        ]
        score = 28 - job // 2 + generator.normal(0, 0.1)
        run = record(psnr=score, overrides=words, seed=job % 2)
        run["config"] = run["config"] | {"seed": job % 2, "network": {"depth": 9 + job // 2}}
        run["metrics"]["last"] = {"val/psnr": float("nan")}
        (tmp_path / str(job)).mkdir()
        (tmp_path / str(job) / "run.json").write_text(json.dumps(run))
    main([str(tmp_path)])
    seen = in_browser(tmp_path, NAMES_PROBE, 1400)
    assert len(seen["psnr"]) == 25  # eight methods, sixteen seeds, the input
    assert all(seen["psnr"])
    assert "depth=9 lr=0.000333 patch_size=32 schedule=constant root=2000 (2 seeds)" in seen["names"]
    assert seen["names"].count("seed=1") == 8
    assert seen["order"] == ["input", *["run", "seed", "seed"] * 8]


def test_the_page_says_what_is_worse_than_its_input_and_holds_strict_json(tmp_path):
    for name, score in (("dncnn", 28.0), ("unet", 15.0)):
        write_run(tmp_path / name, psnr=score, name=name, parameters=float("nan"))
    main([str(tmp_path)])
    page = (tmp_path / "report.html").read_text()
    assert re.findall(r"(\w+) <em>worse than its input</em>", page) == ["unet"]
    assert "<p>Worse than the input: unet.</p>" in page
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)

    def refused(constant):
        raise AssertionError(f"{constant} is not JSON")

    assert len(json.loads(block[1], parse_constant=refused)[0]["runs"]) == 2
