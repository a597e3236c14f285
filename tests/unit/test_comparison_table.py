"""`benchmarks/comparison.py`: the table is made of what is kept, and ranks no more than the photos decide."""

import random
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_scripts import ROOT, benchmark


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return benchmark("comparison")


def keep(script: ModuleType, folder: Path, network: str, seed: str, gain: float, seconds: str) -> None:
    drawn = random.Random(f"{network} {seed}")
    which = {"task": "denoise", "network": network, "seed": seed}
    photos = [
        {
            **which,
            "test": test,
            "photo": f"{test}_{number:02d}",
            "psnr": f"{25 + number % 7 + gain + drawn.gauss(0, 0.02):.4f}",
            "ssim": "0.9",
            "input_psnr": "20.5",
        }
        for test in script.TASKS["denoise"].tests
        for number in range(24)
    ]
    run = {**which, "parameters": "210483", "macs_256": "13759414272", "steps": "2650"}
    script._append(folder / "photos.csv", photos)
    script._append(folder / "runs.csv", [run | {"safetensors": seconds, "onnx": "", "openvino": ""}])


def test_a_table_of_what_is_kept(script: ModuleType, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        keep(script, tmp_path, "nafnet", seed, 1.0, "1.25" if seed == "1" else "")
        keep(script, tmp_path, "unet", seed, 1.0, "0.50" if seed == "1" else "")
    keep(script, tmp_path, "patch_mlp", "1", -2.0, "3.00")
    head, _, *rows, noisy = script.table(tmp_path, "denoise")
    cells = {row.split(" | ")[1]: row.strip("| ").split(" | ") for row in rows}
    assert [cells[f"`{name}`"][0] for name in ("nafnet", "unet", "patch_mlp")] == ["1=", "1=", "3"]
    assert cells["`patch_mlp`"][6:] == ["210", "13.8", "2,650", "3.00", "–", "–"]
    first, second = map(float, cells["`nafnet`"][4].split())
    assert float(cells["`nafnet`"][2]) == pytest.approx((first + second) / 2, abs=0.01)
    assert float(cells["`nafnet`"][5]) == pytest.approx(25 + 66 / 24 + 1, abs=0.03)  # kodak24
    assert [cell.strip() for cell in noisy.split("|")[3:4]] == ["20.50"]
    assert {row.count("|") for row in (head, *rows, noisy)} == {13}


def test_nothing_kept_is_no_table(script: ModuleType, tmp_path: Path) -> None:
    assert list(script.table(tmp_path, "denoise")) == []


def test_what_is_kept_in_the_repository_is_whole(script: ModuleType) -> None:
    """Each run once, with every photo of every test set, and nothing of runs that are not there."""
    kept = ROOT / "experiments" / "comparison"
    runs = [(line["task"], line["network"], line["seed"]) for line in script._read(kept / "runs.csv")]
    if not runs:
        pytest.skip("no results are kept")
    assert len(set(runs)) == len(runs)
    photos: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    for line in script._read(kept / "photos.csv"):
        sets = photos.setdefault((line["task"], line["network"], line["seed"]), {})
        names = sets.setdefault(line["test"], set())
        assert line["photo"] not in names
        names.add(line["photo"])
    assert set(photos) == set(runs)
    for task in {task for task, _, _ in runs}:
        whole = {key: sets for key, sets in photos.items() if key[0] == task}
        assert all(sets == next(iter(whole.values())) for sets in whole.values())
        assert all(set(sets) == set(script.TASKS[task].tests) for sets in whole.values())


def test_a_smaller_table_takes_a_share_of_the_steps_of_the_best(script: ModuleType) -> None:
    whole, smaller = script.TASKS["denoise"], script.TASKS["deblur"]
    assert script._words(whole, "nafnet") == ()
    steps = script._steps()
    assert set(smaller.networks) < set(steps)
    for name in smaller.networks:
        *own, length = script._words(smaller, name)
        assert length == f"trainer.max_steps={round(0.4 * steps[name])}"
        assert tuple(own) == smaller.own.get(name, ())
