"""Classical and fitted methods on the runs' own inputs, in the report."""

import json

import numpy as np
import pytest
import torch
from run_folders import one_group, photo, write_run

from restora.apps.report import main
from restora.cli import main as cli
from restora.evaluation.classical import BASELINES
from restora.metrics.image import psnr
from restora.reporting.baselines import compute, stored
from restora.reporting.inputs import held_out_photos
from restora.reporting.runs import group_runs, read_runs


def silent(*_):
    pass


def test_filters_are_scored_on_the_exact_inputs_of_the_runs(sweep):
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
