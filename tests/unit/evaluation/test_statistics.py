"""Intervals and tests against SciPy and against simulation; ranks that claim no more than the data."""

import math

import numpy as np
import pytest
from scipy import stats

from restora.evaluation import statistics
from restora.evaluation.statistics import (
    bootstrap_mean,
    common_photos,
    fewest_photos,
    holm,
    leaderboard,
    least_p,
    paired_difference,
    signed_rank,
)


def scores(values, prefix: str = "photo") -> dict[str, float]:
    return {f"{prefix}{index:03d}": float(value) for index, value in enumerate(values)}


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_interval_equals_scipys_bca(kind: str) -> None:
    random = np.random.default_rng(3)
    values = random.normal(29, 2, 68) if kind == "normal" else random.exponential(2, 68)
    ours = bootstrap_mean(values.tolist())
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.mean == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * spread)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * spread)


def test_interval_is_corrected_for_bias_where_few_values_are_skewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_widening", lambda count: 1.0)
    statistics._drawn.cache_clear()
    values = np.append(np.linspace(0, 1, 19), [3.0, 4.0])
    ours = bootstrap_mean(values.tolist())
    statistics._drawn.cache_clear()
    theirs = stats.bootstrap((values,), np.mean, n_resamples=100_000, method="BCa", rng=1).confidence_interval
    tolerance = 0.03 * (theirs.high - theirs.low)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=tolerance)


@pytest.mark.parametrize("photos", [5, 10, 24])
def test_interval_of_few_photos_is_as_wide_as_students(photos: int) -> None:
    values = stats.norm.ppf((np.arange(photos) + 0.5) / photos)
    ours = bootstrap_mean(values.tolist())
    students = stats.t.interval(0.95, photos - 1, values.mean(), stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx(students, rel=0.08)


@pytest.mark.slow
def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(120):
        interval = bootstrap_mean(random.normal(1.0, 1.0, 40).tolist(), seed=trial)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.88 <= hits / 120 <= 0.99


def test_interval_is_replayed_and_degenerate_samples_have_no_width() -> None:
    values = [1.0, 2.0, 5.0, 3.0]
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean([2.5]).low == bootstrap_mean([2.5]).high == 2.5


def test_pairing_finds_what_means_alone_would_hide() -> None:
    random = np.random.default_rng(1)
    photos = random.normal(29, 3, 30)  # photos differ far more than methods
    better, worse = scores(photos + 0.1 + random.normal(0, 0.02, 30)), scores(photos)
    difference = paired_difference([better], [worse])
    assert difference.decided
    assert difference.interval.low < 0.1 < difference.interval.high
    assert difference.interval.high - difference.interval.low < 0.05
    assert difference.p_photos == pytest.approx(stats.wilcoxon([better[n] - worse[n] for n in better]).pvalue)
    assert difference.wins == 30


@pytest.mark.slow
def test_noise_is_not_decided_more_often_than_it_should() -> None:
    random = np.random.default_rng(2)
    decided = 0
    for trial in range(80):
        a, b = (scores(random.normal(0, 1, 24)) for _ in range(2))
        decided += paired_difference([a], [b], seed=trial).decided
    assert decided <= 9  # 5 % of 80 is 4; 9 has a chance of 1 %


def test_few_photos_say_that_they_are_too_few() -> None:
    five = paired_difference([scores([2, 3, 4, 5, 6])], [scores([1, 2, 3, 4, 5.5])])
    assert five.smallest_p == 0.0625
    assert not five.decided
    assert five.wins == 5


@pytest.mark.parametrize("equal", [0, 4, 20])
def test_photos_with_equal_scores_do_not_count(equal: int) -> None:
    """Wilcoxon's test drops them; with five others, p is 2/32, exactly."""
    photos = np.arange(5 + equal) + 28.0
    ahead = scores(photos + np.r_[[0.1, 0.2, 0.3, 0.4, 0.5], np.zeros(equal)])
    found = paired_difference([ahead], [scores(photos)])
    assert found.p_photos == found.smallest_p == 0.0625
    assert found.wins == 5
    assert not found.decided


def test_rounding_errors_of_means_over_seeds_are_no_differences() -> None:
    first, second, third = (scores([value] * 30) for value in (0.1, 0.2, 0.3))  # as SSIM
    found = paired_difference([first, second, third], [third, second, first])
    assert found.p_photos == 1
    assert found.wins == 0


def test_a_leaderboard_knows_when_holm_leaves_nothing_possible() -> None:
    photos = np.arange(6) + 28.0
    two = {"a": [scores(photos)], "b": [scores(photos + 1)]}
    assert least_p(two).p == pytest.approx(2 / 64)
    three = two | {"c": [scores(photos + 2)]}
    assert least_p(three).p == pytest.approx(3 * 2 / 64)
    assert all(line.rank == 1 for line in leaderboard(three))


def test_as_many_photos_as_are_needed_can_decide_and_one_fewer_cannot() -> None:
    assert fewest_photos(methods=2) == 6
    for methods in (2, 3, 6):
        fewest = fewest_photos(methods=methods)
        for photos, possible in ((fewest, True), (fewest - 1, False)):
            levels = {str(m): [scores(np.arange(photos) + 10 * m)] for m in range(methods)}
            assert (least_p(levels).p < 0.05) == possible
            assert (leaderboard(levels)[-1].rank > 1) == possible


def test_seeds_widen_the_interval() -> None:
    random = np.random.default_rng(4)
    photos = random.normal(29, 3, 40)
    ours = [scores(photos + shift + 0.3) for shift in (-0.2, 0.0, 0.2)]
    theirs = [scores(photos + shift) for shift in (0.2, -0.2, 0.0)]
    several = paired_difference(ours, theirs)
    single = paired_difference(ours[1:2], theirs[2:])
    assert several.seeds == (3, 3)
    assert several.p_seeds == pytest.approx(stats.wilcoxon([-0.1, 0.5, 0.5]).pvalue)
    assert single.p_seeds is None
    width = several.interval.high - several.interval.low
    assert width > 3 * (single.interval.high - single.interval.low)


@pytest.mark.parametrize(("apart", "decided"), [((0.1, 0.3), False), ((0.19, 0.21), True)])
def test_two_seeds_decide_only_what_hardly_depends_on_them(apart: tuple[float, ...], decided: bool) -> None:
    """Student's t over seeds: p = 0.30 for a difference of 0.2 with a standard error of 0.1, or 0.03."""
    photos = np.random.default_rng(8).normal(29, 3, 24)
    ours = [scores(photos + shift) for shift in apart]
    theirs = [scores(photos)] * 2
    assert paired_difference(ours, theirs).decided is decided
    assert leaderboard({"ours": ours, "theirs": theirs})[1].rank == 1 + decided


def test_unequal_numbers_of_seeds_are_compared_unpaired() -> None:
    photos = np.random.default_rng(5).normal(29, 3, 20)
    ours = [scores(photos + shift) for shift in (1.0, 1.1, 0.9)]
    theirs = [scores(photos + shift) for shift in (0.0, 0.1)]
    difference = paired_difference(ours, theirs)
    assert difference.interval.low < 0.95 < difference.interval.high
    welch = stats.ttest_ind([1.0, 1.1, 0.9], [0.0, 0.1], equal_var=False).confidence_interval()
    assert difference.interval.low < welch.low
    assert difference.interval.low > 0.2
    assert difference.p_seeds == pytest.approx(stats.mannwhitneyu([1.0, 1.1, 0.9], [0.0, 0.1]).pvalue)


def test_holm_equals_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_equal_results_are_not_told_apart() -> None:
    assert signed_rank(np.zeros(10)) == 1.0
    same = scores(range(10))
    assert not paired_difference([same], [same]).decided


def test_leaderboard_ranks_only_what_the_data_decide() -> None:
    random = np.random.default_rng(6)
    photos = random.normal(29, 3, 50)
    methods = {
        "far behind": [scores(photos - 2)],
        "good": [scores(photos + random.normal(0, 0.3, 50))],
        "also good": [scores(photos + 0.01 + random.normal(0, 0.3, 50))],
    }
    lines = {line.name: line for line in leaderboard(methods)}
    assert lines["far behind"].label == "3"
    assert lines["good"].label == lines["also good"].label == "1="
    assert [line.score.mean for line in leaderboard(methods)] == sorted(
        (line.score.mean for line in leaderboard(methods)), reverse=True
    )


def test_a_lower_rank_says_so_where_it_is_not_beyond_doubt() -> None:
    """The best is better than the last, and neither can be told from the erratic one between them."""
    random = np.random.default_rng(7)
    photos = random.normal(29, 3, 40)
    methods = {
        "best": [scores(photos + 0.2 + random.normal(0, 0.05, 40))],
        "erratic": [scores(photos + 0.1 + random.normal(0, 2.0, 40))],
        "last": [scores(photos + random.normal(0, 0.05, 40))],
    }
    lines = {line.name: line for line in leaderboard(methods)}
    assert (lines["best"].rank, lines["last"].rank) == (1, 2)
    assert lines["last"].label == "2="
    assert lines["last"].tied_with == ("erratic",)
    assert set(lines["erratic"].tied_with) == {"best", "last"}


def test_two_photos_rank_nothing() -> None:
    methods = {"a": [scores([30, 31])], "b": [scores([20, 21])]}
    assert {line.label for line in leaderboard(methods)} == {"1="}


def test_only_common_photos_count() -> None:
    assert common_photos([{"a": 1.0, "b": 2.0}, {"b": 1.0, "c": 1.0}]) == ["b"]
    with pytest.raises(ValueError, match="share no photo"):
        common_photos([{"a": 1.0}, {"b": 1.0}])


def test_infinite_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        paired_difference([scores([math.inf, 1])], [scores([1, 1])])


@pytest.mark.parametrize("photos", [5, 24, 60])
@pytest.mark.slow
def test_the_cheap_answers_of_a_leaderboard_are_the_exact_ones(photos, monkeypatch):
    """Many methods at once are ranked as pair by pair: with ties, equal scores and several seeds."""
    from restora.evaluation import statistics

    random = np.random.default_rng(photos)
    photo = random.normal(28, 3, photos)
    names = [f"photo{index}" for index in range(photos)]

    def run(level):
        return dict(zip(names, np.round(photo + level + random.normal(0, 0.1, photos), 2), strict=True))

    methods = {f"m{i}": [run(0.05 * i) for _ in range(1 + i % 3)] for i in range(12)}
    methods["copy"] = methods["m3"]
    differences = [
        np.array(list(a[0].values())) - np.array(list(b[0].values()))
        for a in methods.values()
        for b in methods.values()
    ]
    assert statistics.signed_ranks(differences) == [statistics.signed_rank(each) for each in differences]
    asked = []
    exact = statistics._difference_interval
    monkeypatch.setattr(statistics, "_difference_interval", lambda *a: asked.append(1) or exact(*a))
    quick = leaderboard(methods)
    few = len(asked)
    monkeypatch.setattr(statistics, "_bounds", lambda *_: lambda *_: False)
    assert leaderboard(methods) == quick
    assert few < len(asked) - few or photos < 6


def test_more_methods_than_the_photos_can_rank_need_no_test_of_each_pair(monkeypatch):
    """After Holm's correction, no p of a pair can be below 0.05, whatever the scores."""
    from restora.evaluation import statistics

    random = np.random.default_rng(0)
    methods = {f"m{i}": [dict(zip("abc", random.normal(i, 0.1, 3), strict=True))] for i in range(9)}
    monkeypatch.setattr(statistics, "signed_ranks", lambda _: pytest.fail("computed"))
    assert {line.label for line in leaderboard(methods)} == {"1="}
