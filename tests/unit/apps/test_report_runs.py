"""What is read from run folders in any state, and which runs are compared with which."""

import copy
import json

import pytest
from run_folders import record, write_run

from restora.apps.report_leaderboard import count, duration, leaderboard, verdict
from restora.apps.report_runs import differences, group_runs, read_runs


def put(folder, **entries):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record(**entries)))
    return folder


def configured(**changes):
    config = copy.deepcopy(record()["config"])
    for path, value in changes.items():
        node, (*parents, last) = config, path.split("__")
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
    return config


def test_a_whole_run_is_read(tmp_path):
    write_run(tmp_path / "a", psnr=28.0)
    (run,), problems = read_runs(tmp_path)
    assert problems == []
    assert (run.psnr, run.ssim, run.status) == (28.0, 0.8, "finished")
    assert run.gain == pytest.approx(7.8)
    assert run.seconds_per_photo == pytest.approx(0.05)
    assert [photo.name for photo in run.photos] == ["astronaut", "coffee"]
    # only the rows with a validation, in order: (step, seconds, PSNR)
    assert run.curve == [(10, 8.0, 27.7), (20, 16.0, 27.85), (30, 24.0, 27.9)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "cannot be read"),
        ('{"format": 1, "name": "cut', "cannot be read"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("[1, 2]", "format 'list'"),
        ('{"format": 7}', "format 7"),
    ],
)
def test_unreadable_records_are_named_and_left_out(content, reason, tmp_path):
    put(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    runs, (problem,) = read_runs(tmp_path)
    assert [run.folder.name for run in runs] == ["good"]
    assert problem.folder.name == "bad"
    assert reason in problem.reason


@pytest.mark.parametrize(
    "entries",
    [
        {"test": None},
        {"test": [1]},
        {"test": {"psnr": "high", "images": "none"}},
        {"test": {"psnr": float("nan"), "images": [{"psnr": 1}, 3]}},
        {
            "config": None,
            "cost": [],
            "metrics": "x",
            "sweep": 4,
            "git": [],
            "parameters": "many",
            "started": None,
        },
        {"status": 5, "name": None, "task": None, "family": {}, "error": ["x"]},
    ],
)
def test_entries_of_the_wrong_kind_count_as_missing(entries, tmp_path):
    """Reading, ranking and comparing go on without them."""
    put(tmp_path / "odd", **entries)
    put(tmp_path / "good", psnr=27.0)
    runs, problems = read_runs(tmp_path)
    assert problems == []
    assert len(runs) == 2
    for group in group_runs(runs, tmp_path):
        rows = leaderboard(group, [])
        assert all(row.psnr is None or row.psnr > 0 for row in rows)
        verdict(rows)
        differences(group.runs)


def test_a_curve_that_was_cut_off_keeps_its_whole_rows(tmp_path):
    put(tmp_path / "a")
    (tmp_path / "a" / "metrics.csv").write_text(
        "step,epoch,seconds,val/psnr\n10,0,1.5,25.5\n20,0,3.0,nan\n30,0,4.5,\nx,0,1,26\n40,0,6.0,26.5\n50,0,7"
    )
    (run,), _ = read_runs(tmp_path)
    assert run.curve == [(10, 1.5, 25.5), (40, 6.0, 26.5)]


def test_runs_are_compared_only_where_they_restored_the_same(tmp_path):
    other = configured(degradation__sigma=50)
    grey = configured(data__channels="gray")
    put(tmp_path / "a", psnr=28.0, started="2026-01-01")
    put(tmp_path / "b", psnr=29.0, started="2026-01-02", config=configured(network__depth=9))
    put(tmp_path / "c", psnr=30.0, started="2026-01-05", config=other)
    put(tmp_path / "d", psnr=31.0, started="2026-01-03", config=grey)
    put(tmp_path / "e", psnr=32.0, started="2026-01-04", task="deblur")
    put(tmp_path / "f", started="2026-01-02", test=None, status="failed")
    groups = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert [[run.folder.name for run in group.runs] for group in groups] == [
        ["c"],
        ["e"],
        ["d"],
        ["b", "a", "f"],
    ]
    assert groups[0].title == "denoise · GaussianNoise sigma 50 · 2 held-out photos"


def test_labels_say_what_a_sweep_changed(tmp_path):
    for job, depth in enumerate((9, 17)):
        overrides = [f"network.depth={depth}", "experiments=quickstart/all"]
        put(tmp_path / str(job), sweep={"id": "x", "job": job, "overrides": overrides})
    put(tmp_path / "other", name="unet")
    put(tmp_path / "again" / "0", name="nafnet")
    put(tmp_path / "again" / "1", name="nafnet")
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert sorted(run.label for run in group.runs) == [
        "dncnn network.depth=17",
        "dncnn network.depth=9",
        "nafnet (again/0)",
        "nafnet (again/1)",
        "unet",
    ]


def test_differences_are_the_settings_that_are_not_equal_everywhere(tmp_path):
    put(tmp_path / "a", config=configured(network__depth=9, run_dir="outputs/a"))
    put(tmp_path / "b", config=configured(network__depth=17, family__lr=1 / 3, run_dir="outputs/b"))
    runs, _ = read_runs(tmp_path)
    assert differences(runs) == {"family.lr": ["", "0.333333"], "network.depth": ["9", "17"]}


def test_verdict_compares_with_the_best_classical_filter_and_gives_every_familys_gain(tmp_path):
    from restora.apps.report_baselines import Baseline

    put(tmp_path / "a", psnr=29.0, name="nafnet", family="nafnet")
    put(tmp_path / "b", psnr=28.5, name="dncnn")
    put(tmp_path / "c", psnr=27.5, name="dncnn", seed=2)
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    filters = [Baseline("nl_means", 28.0, 0.8, 0.1, []), Baseline("median", 25.0, 0.7, 0.1, [])]
    assert verdict(leaderboard(group, filters)) == [
        "Best: nafnet, 29.00 dB, +8.80 dB over the degraded photos.",
        "It is 1.00 dB ahead of the best classical filter (nl means, 28.00 dB).",
        "Gain in dB over the degraded photos, best run of each family: nafnet +8.80, residual cnn +8.30.",
    ]
    better = [Baseline("nl_means", 29.5, 0.8, 0.1, [])]
    assert "0.50 dB behind the best classical filter" in verdict(leaderboard(group, better))[1]
    order = [row.label for row in leaderboard(group, filters)]
    assert order == ["nafnet", "dncnn (b)", "nl means", "dncnn (c)", "median", "degraded input"]


def test_numbers_are_written_as_people_write_them():
    assert [count(n) for n in (None, 812, 61_500, 1_234_567, 8.1e9)] == [
        "–",
        "812",
        "61.5 k",
        "1.23 M",
        "8.1 G",
    ]
    assert [duration(s) for s in (None, 9.6, 75, 59.7, 7500)] == [
        "–",
        "10 s",
        "1 min 15 s",
        "60 s",
        "2 h 05 min",
    ]
