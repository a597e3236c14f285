"""How runs and filters are ranked, what is said of them, and their table on a terminal."""

import io
import json

import pytest
from run_folders import configured, put, record, scored

from restora.evaluation.statistics import Interval
from restora.reporting.leaderboard import Row, count, duration, leaderboard, legend, rank_label, verdict
from restora.reporting.runs import group_runs, read_runs
from restora.reporting.terminal import ROWS, shown, terminal_table


def filtered(name, psnr, photos=2):
    from restora.reporting.baselines import Baseline
    from restora.reporting.runs import PhotoScore

    names = ("astronaut", "coffee") if photos == 2 else [f"photo{i}" for i in range(photos)]
    return Baseline(name, psnr, 0.8, 0.1, [PhotoScore(each, psnr, 0.8) for each in names])


def board(tmp_path, filters=()):
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    return leaderboard(group, filters)


def test_two_photos_rank_nothing_and_the_sentences_say_so(tmp_path):
    put(tmp_path / "a", psnr=29.0, name="nafnet", family="nafnet")
    put(tmp_path / "b", psnr=28.5, name="dncnn")
    put(tmp_path / "c", psnr=27.5, name="unet")
    filters = [filtered("nl_means", 28.0), filtered("median", 25.0)]
    rows = board(tmp_path, filters)
    assert [row.label for row in rows] == ["nafnet", "dncnn", "nl means", "unet", "median", "degraded input"]
    assert [rank_label(row) for row in rows if row.kind == "run"] == ["1=", "1=", "1="]
    assert "not significantly different" in legend(rows)
    assert verdict(rows) == [
        "Highest mean: nafnet, 29.00 dB, +8.80 dB over the degraded photos.",
        "On the 2 held-out photos it is not significantly different from dncnn, unet. "
        "At least 7 photos are needed for significance.",
        "It is 1.00 dB ahead of the best classical filter (nl means, 28.00 dB); "
        "the difference is not significant.",
        "Gain in dB over the degraded photos, best run of each family: nafnet +8.80, residual cnn +8.30.",
    ]
    behind = verdict(board(tmp_path, [filtered("nl_means", 29.5)]))
    assert "0.50 dB behind the best classical filter" in behind[2]


def test_many_photos_rank_what_they_decide_and_no_more(tmp_path):
    put(tmp_path / "a", name="nafnet", test=scored(29.5, 30, seed=1))
    put(tmp_path / "b", name="dncnn", test=scored(29.0, 30, seed=2))
    put(tmp_path / "c", name="unet", test=scored(29.0, 30, seed=3))
    rows = board(tmp_path, [filtered("nl_means", 20.0, photos=30)])
    ranks = {row.label: rank_label(row) for row in rows if row.kind == "run"}
    assert ranks == {"nafnet": "1", "dncnn": "2=", "unet": "2="}
    assert verdict(rows)[0].startswith("Best: nafnet, 29.")
    assert "another seed may change its rank" in verdict(rows)[-1]
    assert verdict(rows)[1].endswith("best classical filter (nl means, 20.00 dB).")
    interval = rows[0].interval
    assert interval.low < rows[0].psnr < interval.high


def test_finished_runs_without_held_out_photos_are_named(tmp_path):
    put(tmp_path / "a", test=None)
    put(tmp_path / "b", test=None, status="stopped", name="unet")
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    (sentence,) = verdict(leaderboard(group, []))
    assert sentence.startswith("No figures of held-out photos: dncnn (best validation 27.80 dB). Runs have")


def test_runs_that_differ_in_their_seed_are_one_method(tmp_path):
    for seed in (1, 2, 3):
        config = configured(seed=seed, data__seed=seed)
        put(
            tmp_path / f"dncnn{seed}", seed=seed, config=config, test=scored(29.0 + seed, 8),
            sweep={"id": "x", "job": seed, "overrides": [f"seed={seed}"]},
        )  # fmt: skip
    put(tmp_path / "again", seed=3, config=configured(seed=3, data__seed=3), test=scored(32.0, 8))
    put(tmp_path / "deep", config=configured(network__depth=9), test=scored(25.0, 8), name="deep")
    put(tmp_path / "failed", config=configured(seed=4), test=None, status="failed", seed=4, name="late")
    rows = board(tmp_path)
    runs = [(row.kind, row.label, row.run is None) for row in rows if row.kind != "input"]
    assert ("run", "dncnn (3 seeds)", True) in runs
    assert [kind for kind, _, _ in runs].count("seed") == 3
    method = next(row for row in rows if row.label == "dncnn (3 seeds)")
    assert method.psnr == pytest.approx(31.0, abs=0.1)
    assert len(method.scores) == 3
    seeds = [row.label for row in rows if row.kind == "seed"]
    assert seeds[1:] == ["dncnn seed=2", "dncnn seed=1"]
    apart = {"dncnn seed=3 (dncnn3)", "dncnn seed=3 (again)"}  # a seed counts once
    assert {row.label for row in rows} >= apart
    assert rank_label(next(row for row in rows if row.label == "deep")) == "3"
    assert all(rank_label(row) == "" for row in rows if row.kind == "seed" or row.psnr is None)


def test_equal_methods_of_two_sweeps_are_named_by_their_folders(tmp_path):
    for sweep in ("a", "b"):
        for seed in (1, 2):
            put(tmp_path / sweep / f"{seed}_x", seed=seed, config=configured(seed=seed),
                overrides=[f"seed={seed}"], test=scored(29.0 + seed, 8))  # fmt: skip
    labels = {row.label for row in board(tmp_path) if row.kind == "run"}
    assert labels == {"dncnn (a) (2 seeds)", "dncnn (b) (2 seeds)"}


def test_seeds_may_be_computed_in_different_surroundings(tmp_path):
    other = {"data__workers": 2, "leakage__check": False, "logger__mode": "disabled", "data_dir": "/scratch"}
    for seed, settings in ((1, {"data_dir": "/data"}), (2, other)):
        root = f"{settings['data_dir']}/DIV2K"
        config = configured(seed=seed, data__source__root=root, **settings)
        put(tmp_path / str(seed), seed=seed, config=config, test=scored(29.0, 8),
            overrides=[f"seed={seed}", *(f"{key.replace('__', '.')}={v}" for key, v in settings.items())],
        )  # fmt: skip
    assert [row.label for row in board(tmp_path) if row.kind != "input"] == [
        "dncnn (2 seeds)",
        "seed=1",
        "seed=2",
    ]


def test_numbers_are_written_as_people_write_them():
    assert [count(n) for n in (None, 812, 61_500, 999_700, 1_234_567, 8.1e9)] == [
        "–",
        "812",
        "61.5 k",
        "1 M",
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


def test_runs_of_both_editions_are_one_comparison(tmp_path):
    """The first edition wrote the classes of parts, later ones their names."""
    old = configured(
        degradation__sigma=25,
        degradation___target_="restora.degradations.noise.GaussianNoise",
        data__source___target_="restora.data.sources.SamplePhotos",
        network___target_="restora.networks.dncnn.DnCNN",
    )
    new = configured(network___target_="dncnn", data__channels=3, seed=2)
    put(tmp_path / "old", format=1, config=old, command="restora train seed=1", test=scored(29.0, 8))
    put(tmp_path / "new", format=2, config=new, seed=2, overrides=["seed=2"], test=scored(29.1, 8))
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert group.title == "denoise · gaussian noise sigma 25 · 8 held-out photos"
    assert sorted(run.label for run in group.runs) == ["seed=1", "seed=2"]


def test_a_run_that_was_resumed_is_a_seed_like_the_others(tmp_path):
    for seed in (1, 2, 3):
        config = configured(seed=seed, resume=str(tmp_path / "2") if seed == 2 else None)
        put(tmp_path / str(seed), seed=seed, config=config, overrides=[f"seed={seed}"], test=scored(29.0, 8))
    assert board(tmp_path)[0].label == "dncnn (3 seeds)"


def swept(folder, runs=12, worse=()):
    """Runs of a sweep over five keys, each of its own score."""
    for job in range(runs):
        words = [
            "experiments=denoise/dncnn",
            f"family.optimizer.lr={(job + 1) / 3000:.8f}",
            f"network.depth={9 + job % 2}",
            f"data.patch_size={32 + job}",
            f"schedule@family.schedule={'multi_step' if job % 3 else 'constant'}",
            f"seed={job % 4}",
        ]
        score = 15.0 if job in worse else 29.0 - job / 10
        test = scored(score, 8)
        put(folder / str(job), overrides=words, test=test, status="failed" if job == 5 else "finished")
    return folder


def printed(rows, width):
    from rich.console import Console

    console = Console(width=width, file=io.StringIO())
    console.print(terminal_table("a title", rows, width))
    return console.file.getvalue().splitlines()


@pytest.fixture(scope="module")
def sweep_of_twelve(tmp_path_factory):
    return board(swept(tmp_path_factory.mktemp("sweep")))


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.slow
def test_each_row_is_one_line_of_the_terminal_and_shows_the_score(width, sweep_of_twelve, tmp_path):
    rows = sweep_of_twelve
    lines = printed(rows, width)
    assert max(map(len, lines)) <= width
    body = [line for line in lines if "lr=" in line]
    assert len(body) == 12
    for row in rows:
        if row.kind == "run":
            (line,) = [line for line in body if row.label in line]
            assert f"{row.psnr:.2f}" in line
    assert ("s/photo" in lines[1]) == (width == 160)
    short = printed(board(put(tmp_path / "one" / "a", name="dncnn").parent), 80)
    assert "s/photo" in short[1]


def test_seeds_stand_below_their_method_by_their_seed(tmp_path):
    for seed in (1, 2):
        config = configured(seed=seed)
        put(tmp_path / f"{seed}", seed=seed, config=config, overrides=[f"seed={seed}"], test=scored(28, 8))
    put(
        tmp_path / "deep",
        config=configured(network__depth=9),
        overrides=["network.depth=9"],
        test=scored(25, 8),
    )
    lines = [line.split()[:4] for line in printed(board(tmp_path), 80)]
    assert any(line[:1] == ["seed=2"] for line in lines)
    assert any(line[1:4] == ["depth=4", "(2", "seeds)"] for line in lines)


def test_a_great_many_rows_are_left_to_the_page():
    def row(kind, label):
        return Row(kind, label, "", 28.0, 0.8, 7.8)

    rows = [row(kind, str(number)) for number in range(60) for kind in ("run", "seed")]
    found = shown([*rows, row("input", "degraded input")])
    assert [row.label for row in found] == [*map(str, range(ROWS)), "degraded input"]
    assert shown(rows[:ROWS]) == rows[:ROWS]


@pytest.mark.parametrize(
    ("worse", "sentence"),
    [
        ((), None),
        ((3,), "Worse than the input: lr=0.00133 "),
        ((0, 1, 2, 3), "All runs are worse than their input: their photos are better left as they are."),
    ],
)
def test_runs_worse_than_their_input_are_named(worse, sentence, tmp_path):
    rows = board(swept(tmp_path, runs=4, worse=worse))
    said = [line for line in verdict(rows) if "orse than" in line]
    if sentence is None:
        assert said == []
        return
    assert any(line.startswith(sentence) for line in said)
    if len(worse) == 4:
        assert "dB worse than the degraded photos" in verdict(rows)[0]
    assert [row.is_worse for row in rows if row.kind == "run"].count(True) == len(worse)


def test_a_run_without_scores_of_photos_is_not_ranked(tmp_path):
    put(tmp_path / "a", name="nafnet", test={"psnr": 30.0, "input_psnr": 20.2, "images": []})
    put(tmp_path / "b", psnr=28.0, name="unet")
    rows = board(tmp_path)
    assert [rank_label(row) for row in rows if row.kind == "run"] == ["", "1"]
    assert "Not ranked: it has no finite scores of the others' photos." in verdict(rows)


def test_a_single_run_worse_than_its_input_says_so(tmp_path):
    put(tmp_path / "a", psnr=15.0)
    assert verdict(board(tmp_path)) == ["dncnn, 15.00 dB, 5.20 dB worse than the degraded photos."]


def test_figures_against_noisy_photos_are_called_that(tmp_path):
    put(tmp_path / "a", psnr=15.0, reference="noisy")
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert group.title.endswith("2 held-out photos · against noisy photos")
    assert verdict(leaderboard(group, [])) == [
        "All figures are against another noisy version of each photo, not against clean photos.",
        "dncnn, 15.00 dB, -5.20 dB compared with the degraded photos.",
    ]
    assert not any(row.is_worse for row in leaderboard(group, []))


def chosen_by(folder, metric, direction, *, psnr, values, **entries):
    """A run whose monitor is `metric`, with one value for each held-out photo and two validations."""
    made = record(psnr=psnr, config=configured(monitor={"metric": f"val/{metric}", "direction": direction}))
    for row, value in zip(made["test"]["images"], values, strict=True):
        row[metric] = value
    made["test"] |= {metric: sum(values) / 2, f"input_{metric}": 0.5} | entries
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(made))
    (folder / "metrics.csv").write_text(
        f"step,seconds,val/psnr,val/{metric}\n10,1.0,25.0,{values[0]}\n20,2.0,26.0,{values[1]}\n"
    )


@pytest.mark.parametrize(
    ("metric", "direction", "better", "worse", "words"),
    [
        ("ssim", "max", (0.91, 0.93), (0.81, 0.83), "ssim 0.9200, 27.00 dB"),
        ("lpips", "min", (0.11, 0.13), (0.31, 0.33), "lpips 0.1200, 27.00 dB"),
    ],
)
def test_runs_are_ranked_and_drawn_by_what_they_were_chosen_by(
    metric, direction, better, worse, words, tmp_path
):
    """The run of the lower PSNR leads where its monitored figure is the better one."""
    chosen_by(tmp_path / "a", metric, direction, psnr=29.0, values=worse)
    chosen_by(tmp_path / "b", metric, direction, psnr=27.0, values=better)
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert group.monitor.name == metric
    assert [run.folder.name for run in group.runs] == ["b", "a"]
    assert group.runs[0].curve == [(10, 1.0, better[0]), (20, 2.0, better[1])]
    rows = leaderboard(group, [])
    assert [row.psnr for row in rows] == [27.0, 29.0, 20.2]
    assert rows[0].rank.score.mean == pytest.approx(sum(better) / 2 * (1 if direction == "max" else -1))
    assert rows[0].interval.mean == pytest.approx(27.0), "the interval is that of the PSNR beside it"
    assert words in verdict(rows)[0]
    assert f"ranked by {metric} of the held-out photos" in legend(rows)


def test_runs_chosen_by_different_metrics_are_ranked_by_psnr(tmp_path):
    chosen_by(tmp_path / "a", "ssim", "max", psnr=27.0, values=(0.9, 0.9))
    chosen_by(tmp_path / "b", "psnr", "max", psnr=29.0, values=(29.5, 28.5))
    (group,) = group_runs(read_runs(tmp_path)[0], tmp_path)
    assert [run.folder.name for run in group.runs] == ["b", "a"]
    assert group.runs[1].curve == [(10, 1.0, 25.0), (20, 2.0, 26.0)]
    assert "ranked by" not in legend(leaderboard(group, []))


@pytest.mark.parametrize(("photos", "shown"), [(1, False), (2, True)])
def test_one_photo_has_no_interval(photos: int, shown: bool) -> None:
    scores = ({f"{n}.png": 28.0 + n for n in range(photos)},)
    row = Row("run", "a", "unet", 28.0, None, None, scores=scores, mean=Interval(28.0, 27.0, 29.0))
    assert (row.interval is not None) is shown
