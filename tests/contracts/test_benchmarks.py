"""Every option of `benchmark` composes, builds, and feeds a method; ready ones carry what their names
say."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image
from scored_planes import scored_planes
from skimage import data
from test_composed import frozen

from restora.apps.evaluate_plan import _benchmark
from restora.config import compose, options, parts
from restora.data.div2k import _photo_archive
from restora.evaluation.benchmarks.base import Benchmark, Intake
from restora.evaluation.benchmarks.degraded import Degraded
from restora.evaluation.testsets import TestSet, archive_name
from restora.registry import build

BENCHMARKS = [name for name in options("benchmark") if not name.startswith("testset/")]
FROZEN = frozen("benchmark")
TESTSETS = options("benchmark/testset")
NEEDED = {
    "denoise": ["benchmark.sigma=25"],
    "super_resolution": ["benchmark.scale=2"],
    "jpeg": ["benchmark.quality=10"],
    "degraded": ["degradation@benchmark.degradation=gaussian_blur"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    Image.fromarray(np.ascontiguousarray(data.astronaut()[50:122, 180:264])).save(root / "a.png")
    return root


@cache
def made(name: str, folder: Path) -> Benchmark:
    return build_with_root(name, folder)


def build_with_root(name: str, folder: Path) -> Benchmark:
    needed = NEEDED.get(name, [])
    needed = [f"benchmark.degraded_root='{folder}'"] if name == "paired" else needed
    config = compose("evaluate", [f"benchmark={name}", f"benchmark.root='{folder}'", *needed])
    node: Any = OmegaConf.to_container(config.benchmark, resolve=True)
    if name in FROZEN and not needed:
        said = {key: value for key, value in node.items() if key in FROZEN[name]}
        assert said | {"testset": node["testset"]["name"]} == FROZEN[name], "not what it was"
    return _benchmark(node, None)


def test_no_benchmark_is_lost() -> None:
    assert {*FROZEN} <= {*BENCHMARKS}
    assert {name for name in FROZEN if name not in NEEDED} > {"bsd68_sigma25", "set5_x2"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark_builds_and_observes(name: str, folder: Path) -> None:
    benchmark = made(name, folder)
    observation = benchmark.observe(0, Intake())
    restored, clean = scored_planes(benchmark, observation.baseline, observation)
    assert restored.shape == clean.shape
    assert benchmark.describe()["task"] == benchmark.task
    assert benchmark.task in benchmark.title.replace(" ", "_")


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name[-1].isdigit()])
def test_ready_benchmarks_are_what_they_are_called(name: str, folder: Path) -> None:
    benchmark = made(name, folder)
    values = benchmark.describe()
    if isinstance(benchmark, Degraded):
        values["scale"] = benchmark.degradation.scale
    testset, _, severity = name.rpartition("_")
    prefix = severity.rstrip("0123456789")
    key = {"sigma": "sigma", "x": "scale", "q": "quality"}.get(prefix, "width")
    assert values[key] == int(severity.removeprefix(prefix))
    assert values["testset"].lower().startswith(testset.split("_")[0])
    assert values["color"] == {"bsd68": "gray", "set12": "gray", "classic5": "gray"}.get(
        testset, "rgb" if key in ("sigma", "width") or testset.startswith(("div2k", "kodak24")) else "y"
    )
    if key == "width":
        assert values["blur"] == {"defocus": "disc"}.get(prefix, prefix)


@pytest.mark.parametrize("name", TESTSETS)
def test_test_sets_are_named_and_say_where_they_are(name: str) -> None:
    overrides = ["benchmark=denoise", f"benchmark/testset={name}", "benchmark.sigma=25", "data_dir=here"]
    config = compose("evaluate", overrides)
    testset = build(OmegaConf.to_container(config.benchmark.testset, resolve=True), "testset")
    assert isinstance(testset, TestSet)
    if name == "folder":
        return
    prepared = name == "div2k_valid"
    assert testset.root == f"here/{'DIV2K' if prepared else 'testsets'}/{testset.name}"
    assert testset.images
    if prepared:
        assert "restora prepare data=div2k" in str(testset.source)
    else:
        assert testset.name.lower() == name, "`restora prepare testsets=` knows the name of the file"
        assert str(testset.archive).startswith("https://")
        assert testset.folder
        assert testset.source is None, "archive and folder say it"


def test_every_archive_has_a_file_name_of_its_own() -> None:
    archives = set()
    for node in parts("benchmark/testset").values():
        if node.get("archive"):
            archive, folder = str(node["archive"]), str(node["folder"])
            archives.add((archive, archive_name(archive=archive, folder=folder)))
    assert {name for _, name in archives} == {"DnCNN-master.zip", "FFDNet-master.zip", "benchmark.tar"}
    assert len(archives) == 3


def test_div2ks_validation_photos_are_where_prepare_puts_them() -> None:
    prepared = compose("prepare", ["data=div2k", "data_dir=here"]).data.source.root
    tested = compose("evaluate", ["benchmark=div2k_valid_x2", "data_dir=here"]).benchmark.root
    assert tested == f"{prepared}/{_photo_archive('valid', verify=True).folder}"


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name.endswith("_blind")])
def test_blind_benchmarks_draw_a_level_for_each_photo(name: str, folder: Path, tmp_path: Path) -> None:
    for index in range(8):
        shutil.copy(folder / "a.png", tmp_path / f"{index}.png")
    benchmark = build_with_root(name, tmp_path)
    levels = [benchmark.observe(index, Intake()).sigma for index in range(8)]
    assert len(set(levels)) == 8
    assert all(0 <= level <= 55 for level in levels)
    assert levels == [benchmark.observe(index, Intake()).facts["sigma"] for index in range(8)]


@pytest.mark.parametrize(
    ("testset", "masks"),
    [
        *((name, "inpaint_brush") for name in TESTSETS if name != "folder"),
        *(("set5", masks) for masks in ("inpaint_rectangles", "text_overlay")),
    ],
)
def test_every_test_set_takes_masks(testset: str, masks: str, folder: Path) -> None:
    words = ["benchmark=inpaint", f"benchmark/testset={testset}", f"benchmark.root='{folder}'"]
    config = compose("evaluate", [*words, f"degradation@benchmark.degradation={masks}"])
    benchmark = build(OmegaConf.to_container(config.benchmark, resolve=True), "benchmark")
    lost = benchmark.observe(0, Intake()).facts["lost"]
    assert 0.001 < lost < 0.9
