"""The report as a whole: classical filters on the runs' own inputs, the table, and a page that works by
itself."""

import base64
import io
import json
import re
import shutil
import struct
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import photo, record, write_run

from restora.apps.report import main
from restora.cli import main as cli
from restora.evaluation.classical import BASELINES
from restora.metrics.image import psnr
from restora.photos.blocks import png_chunk
from restora.photos.header import PNG_SIGNATURE
from restora.reporting.baselines import compute, stored
from restora.reporting.inputs import held_out_photos
from restora.reporting.photos import embedded_photos
from restora.reporting.runs import group_runs, read_runs

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture
def sweep(tmp_path):
    """Three finished runs of a sweep, one that failed and one that was cut off."""
    for job, (name, family, score) in enumerate(
        (("dncnn", "residual_cnn", 27.0), ("nafnet", "nafnet", 29.0), ("unet", "unet", 28.0))
    ):
        write_run(tmp_path / "sweep" / f"{job}_{name}", psnr=score, name=name, family=family)
    failed = tmp_path / "sweep" / "3_gan"
    failed.mkdir()
    entries = {"status": "failed", "error": f"ValueError: {HOSTILE}", "test": None, "name": "gan"}
    (failed / "run.json").write_text(json.dumps(record(**entries)))
    (tmp_path / "sweep" / "4_cut").mkdir()
    (tmp_path / "sweep" / "4_cut" / "run.json").write_text('{"format": 1')
    return tmp_path / "sweep"


def one_group(root):
    (group,) = group_runs(read_runs(root)[0], root)
    return group


def silent(*_):
    pass


def test_filters_are_judged_on_the_exact_inputs_of_the_runs(sweep):
    """A filter that returns its input scores what the unclipped noise scores after rounding, and sigma is
    passed on."""
    seen = []

    def identity(noisy, sigma):
        seen.append((noisy.dtype, noisy.min() < 0, sigma))
        return noisy

    (row,) = compute(one_group(sweep), sweep, {"identity": identity}, silent)
    exact = np.load(sweep / "0_dncnn" / "images" / "astronaut_degraded.npy")
    rounded = np.round(exact.clip(0, 1) * 255) / 255
    x, y = (torch.from_numpy(a).permute(2, 0, 1)[None].float() for a in (rounded, photo() / 255))
    assert row.images[0].psnr == pytest.approx(float(psnr(x, y)), abs=1e-4)
    assert row.psnr == pytest.approx(np.mean([image.psnr for image in row.images]))
    assert seen == [(np.dtype("float32"), True, 25.0)] * 2


@pytest.mark.parametrize(
    "content",
    [
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9000000, 1000000), }".ljust(118),
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(118),
        b"\x93NUMPY\x01\x00v\x00" + b"(" * 118,
        b"cos\nsystem\n",
        b"",
    ],
    ids=["terabytes", "objects", "no header", "a pickle", "nothing"],
)
def test_an_array_that_is_none_is_named_and_takes_no_memory(sweep, content):
    for exact in sweep.rglob("*_degraded.npy"):
        exact.write_bytes(content)
    read = held_out_photos(one_group(sweep))
    with pytest.raises(ValueError, match=r"_degraded\.npy cannot be read as an array"):
        next(iter(read.values()))()


def test_filters_are_computed_once_and_again_when_the_inputs_change(sweep):
    calls = []

    def half(noisy, sigma):
        calls.append(sigma)
        return noisy * 0.5 + 0.25

    group = one_group(sweep)
    first = compute(group, sweep, {"half": half}, silent)
    assert compute(group, sweep, {"half": half}, silent) == first == stored(group, sweep)
    assert len(calls) == 2
    content = json.loads((sweep / "baselines.json").read_text())
    assert set(content["rows"][0]) == {"name", "psnr", "ssim", "seconds", "images"}
    for run in sweep.glob("*_*/images"):
        np.save(run / "coffee_degraded.npy", np.load(run / "coffee_degraded.npy") + 0.01)
    changed = compute(group, sweep, {"half": half}, silent)
    assert len(calls) == 4
    assert changed != first


def test_rows_of_other_photos_are_not_taken_for_these(sweep):
    compute(one_group(sweep), sweep, {"same": lambda noisy, _: noisy}, silent)
    path = sweep / "baselines.json"
    content = json.loads(path.read_text())
    content["rows"][0]["images"][0]["name"] = "another"
    path.write_text(json.dumps(content))
    assert stored(one_group(sweep), sweep) == []
    path.write_text("{")
    assert stored(one_group(sweep), sweep) == []


@pytest.mark.parametrize("other", ["other noise", "other photos"])
def test_groups_of_one_folder_keep_their_own_rows(sweep, other):
    for job in range(2):
        folder = write_run(sweep / f"other{job}", seed=7)
        content = json.loads((folder / "run.json").read_text())
        if other == "other noise":
            content["config"]["degradation"]["sigma"] = 15
        for image in content["test"]["images"]:  # of the same names in either case
            image["input_psnr"] += 1.0
        (folder / "run.json").write_text(json.dumps(content))
    groups = group_runs(read_runs(sweep)[0], sweep)
    assert len(groups) == 2
    calls = []
    filters = {"same": lambda noisy, _: calls.append(1) or noisy}
    first = compute(groups[0], sweep, filters, silent)
    assert stored(groups[1], sweep) == []
    second = compute(groups[1], sweep, filters, silent)
    assert (stored(groups[0], sweep), stored(groups[1], sweep)) == (first, second)
    assert first[0].psnr != second[0].psnr
    assert len(calls) == 4
    assert compute(groups[0], sweep, filters, silent) == first
    assert len(calls) == 4


def test_filters_need_gaussian_noise_and_exact_inputs(sweep):
    group = one_group(sweep)
    for path in sweep.rglob("*.npy"):
        path.unlink()
    with pytest.raises(ValueError, match="no run kept the exact degraded photos"):
        compute(group, sweep, BASELINES, silent)
    for run in group.runs:
        run.config["degradation"]["_target_"] = "gaussian_blur"
    with pytest.raises(ValueError, match="Gaussian noise of one level"):
        compute(group, sweep, BASELINES, silent)


def test_inputs_that_were_not_kept_are_made_anew(tmp_path):
    """A run that kept none or one of its two held-out photos: the photos and the noise are the run's own."""
    words = ["train", "debug=fast", "network=dncnn_color", "network.depth=3", "network.channels=4"]
    words += [f"data_dir={tmp_path}/data", "leakage.check=false"]
    assert cli([*words, f"hydra.run.dir={tmp_path}/runs/a"]) == 0
    whole = held_out_photos(one_group(tmp_path / "runs"))
    kept = {name: load() for name, load in whole.items()}
    assert sorted(kept) == ["chelsea", "coffee"]
    for name in ("coffee", "chelsea"):
        (tmp_path / "runs" / "a" / "images" / f"{name}_degraded.npy").unlink()
        made = {each: load() for each, load in held_out_photos(one_group(tmp_path / "runs")).items()}
        for each in kept:
            np.testing.assert_allclose(made[each].degraded, kept[each].degraded, atol=1e-6)
            np.testing.assert_array_equal(made[each].clean, kept[each].clean)
    (row,) = compute(one_group(tmp_path / "runs"), tmp_path / "runs", {"same": lambda x, _: x}, silent)
    assert sorted(image.name for image in row.images) == ["chelsea", "coffee"]
    assert 20.2 < row.psnr < 21.5  # noise of sigma 25, clipped


def test_other_photos_of_the_same_name_are_not_taken_for_the_runs(tmp_path):
    words = ["train", "debug=fast", "network=dncnn_color", "network.depth=3", "network.channels=4"]
    words += [f"data_dir={tmp_path}/data", "leakage.check=false"]
    assert cli([*words, f"hydra.run.dir={tmp_path}/runs/a"]) == 0
    images = tmp_path / "runs" / "a" / "images"
    (images / "coffee_degraded.npy").unlink()
    np.save(images / "chelsea_degraded.npy", np.load(images / "chelsea_degraded.npy") + 0.01)
    with pytest.raises(ValueError, match="chelsea: the recreated degraded photo differs"):
        held_out_photos(one_group(tmp_path / "runs"))


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


def test_baselines_by_name_are_classical_or_fitted(sweep, monkeypatch):
    import restora.fitting.zs_n2n as module

    monkeypatch.setattr(
        module.ZeroShotNoise2Noise, "__call__",
        lambda self, problem, **_: iter([module.Step(1, 1, problem.degraded * 0, 0.0)]),
    )  # fmt: skip
    assert main([str(sweep), "--baselines", "--methods", "median,zs_n2n"]) == 0
    rows = json.loads((sweep / "baselines.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["median", "zs_n2n"]
    assert rows[1]["psnr"] < rows[0]["psnr"]
    with pytest.raises(ValueError, match=r"there is no denoiser 'zssr': use one of median.*zs_n2n"):
        main([str(sweep), "--baselines", "--methods", "zssr"])
    with pytest.raises(ValueError, match="add --baselines"):
        main([str(sweep), "--methods", "median"])


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
