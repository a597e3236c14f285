"""What is read from run folders in any state, and which runs are compared with which."""

import pytest
from run_folders import configured, one_group, put, record, scored, write_run

from restora.reporting.leaderboard import leaderboard, verdict
from restora.reporting.runs import differences, group_runs, read_runs
from restora.run_state import this_process


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


def test_a_run_that_ends_while_the_report_is_made_is_not_dead(tmp_path):
    put(tmp_path / "a", status="running", process=this_process())
    (run,), _ = read_runs(tmp_path)
    run.record["process"]["pid"] = 2**30  # gone meanwhile
    assert run.status == "running"


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
    assert groups[0].title == "denoise · gaussian noise sigma 50 · 2 held-out photos"


def test_labels_say_what_a_sweep_changed(tmp_path):
    for job, depth in enumerate((9, 17)):
        overrides = [f"network.depth={depth}", "experiments=quickstart/all"]
        sweep = {"id": "x", "job": job, "overrides": overrides}
        put(tmp_path / str(job), sweep=sweep, config=configured(network__depth=depth))
    put(tmp_path / "other", name="unet")
    put(tmp_path / "again" / "0", name="nafnet")
    put(tmp_path / "again" / "1", name="nafnet")
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert sorted(run.label for run in group.runs) == [
        "dncnn depth=17",
        "dncnn depth=9",
        "nafnet (again/0)",
        "nafnet (again/1)",
        "unet",
    ]


def test_differences_are_the_settings_that_are_not_equal_everywhere(tmp_path):
    put(tmp_path / "a", config=configured(network__depth=9, run_dir="outputs/a"))
    put(tmp_path / "b", config=configured(network__depth=17, family__lr=1 / 3, run_dir="outputs/b"))
    runs, _ = read_runs(tmp_path)
    assert differences(runs) == {"family.lr": ["", "0.333333"], "network.depth": ["9", "17"]}


def test_a_precision_by_its_other_names_is_no_difference(tmp_path):
    """Of `auto`, which its machine has decided, the record has what it is."""

    def trained_in(typed, used):
        given = {"overrides": [f"trainer.precision={typed}"], "config": configured(trainer__precision=typed)}
        put(tmp_path / typed, precision=used, **given)
        return one_group(tmp_path)

    trained_in("auto", "32-true")
    group = trained_in("float32", "32-true")
    assert differences(group.runs) == {}
    assert {run.label for run in group.runs} == {"dncnn (auto)", "dncnn (float32)"}
    put(tmp_path / "queued", status="queued", test=None, config=configured(trainer__precision="auto"))
    assert differences(one_group(tmp_path).runs) == {}
    group = trained_in("bf16", "bf16-mixed")
    precisions = differences(group.runs)["trainer.precision"]
    assert sorted(precisions) == ["32-true", "32-true", "auto", "bf16-mixed"]


def test_runs_of_other_photos_have_a_table_of_their_own(tmp_path):
    put(tmp_path / "a", name="nafnet", psnr=29.0)
    put(tmp_path / "b", name="dncnn", test=scored(28.0, 8))
    put(tmp_path / "c", name="unet", test=scored(27.0, 7))  # one photo fewer
    put(tmp_path / "d", name="failed", test=None, status="failed")
    other = scored(26.0, 8)
    for image in other["images"]:
        image["input_psnr"] += 0.1  # other photos by the same names
    put(tmp_path / "e", name="edsr", test=other)
    groups = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert sorted([run.folder.name for run in group.runs] for group in groups) == [
        ["a", "d"],
        ["b"],
        ["c"],
        ["e"],
    ]


def test_the_command_that_resumes_a_run_has_its_plugins_and_configuration(tmp_path):
    put(tmp_path / "plain", status="stopped")
    command = "restora train --config-dir '/my conf' plugins=[mylab,other] network=lab_net"
    put(tmp_path / "own", status="stopped", command=command, config=configured(plugins=["mylab", "other"]))
    found = {run.folder.name: run.resuming for run in read_runs(tmp_path)[0]}
    assert found["plain"] == f"restora train resume={tmp_path / 'plain'}"
    assert found["own"] == (
        f"restora train resume={tmp_path / 'own'} --plugin mylab --plugin other --config-dir '/my conf'"
    )


def test_a_data_set_may_lie_elsewhere_on_another_machine(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name, config=configured(data_dir=f"/{name}", data__source__root=f"/{name}/DIV2K"))
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert len(group.runs) == 2


def test_titles_of_tables_differ(tmp_path):
    """By the settings that differ, or by age where the photos of one folder have changed."""
    put(tmp_path / "a", started="2026-01-01")
    put(tmp_path / "b", started="2026-01-02", config=configured(data__source__root="/b"))
    put(tmp_path / "c", started="2026-01-03", config=configured(data__source__root="/c"))
    other = record(psnr=26.0)["test"]
    for image in other["images"]:
        image["input_psnr"] += 0.1
    put(tmp_path / "d", started="2026-01-04", config=configured(data__source__root="/c"), test=other)
    title = "denoise · gaussian noise sigma 25 · 2 held-out photos"
    groups = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert {group.runs[0].folder.name: group.title for group in groups} == {
        "a": f"{title} · data.source.root=null",
        "b": f"{title} · data.source.root=/b",
        "c": f"{title} · data.source.root=/c",
        "d": f"{title} · data.source.root=/c · other photos (2)",
    }
