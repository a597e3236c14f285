"""Significance of comparisons: paired differences over photos and seeds, and ranks that follow them.

Enters: per method one or more runs (seeds), each a mapping photo name -> score, higher is better. Two
methods are compared on the photos that both have, photo by photo. Scores that are not finite (PSNR of an
exact copy) cannot be averaged and are refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, count
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Scores: TypeAlias = Mapping[str, float]
Table: TypeAlias = NDArray[np.float64]
RESAMPLES = 10_000
LEVEL = 0.95
_ROUNDING = 1e-9
"""Differences below it count as rounding errors."""


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval at the level `LEVEL`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """First method minus second, in the units of the score.

    `interval` resamples photos, and seeds where there are several. `p_photos` is Wilcoxon's signed-rank
    test, two-sided, over photos (seeds averaged); `p_seeds` is the same over paired seeds, the rank-sum test
    over unpaired ones, None with one seed. `smallest_p` is the smallest p that so many photos with unequal
    scores can give: above 0.05 nothing can be significant.
    """

    interval: Interval
    p_photos: float
    p_seeds: float | None
    photos: int
    seeds: tuple[int, int]
    wins: int
    smallest_p: float

    @property
    def decided(self) -> bool:
        """Whether it is significant: the interval excludes 0 and p over photos is below 0.05."""
        return (self.interval.low > 0 or self.interval.high < 0) and self.p_photos < 1 - LEVEL


def bootstrap_mean(values: Sequence[float], *, seed: int = 0) -> Interval:
    """The mean of a sample with its bias-corrected and accelerated bootstrap interval.

    Efron, "Better bootstrap confidence intervals", JASA 1987; widened for few values. One value gives an
    interval of no width.
    """
    table = np.asarray(values, dtype=np.float64)[None]
    return _interval(table, seed)


def paired_difference(first: Sequence[Scores], second: Sequence[Scores], *, seed: int = 0) -> Difference:
    """Compares two methods, each given as its seeds (a single run is a list of one)."""
    names = common_photos([*first, *second])
    a, b = _table(first, names), _table(second, names)
    over_photos = _differences(a, b)
    return Difference(
        interval=_difference_interval(a, b, seed),
        p_photos=signed_rank(over_photos),
        p_seeds=_p_over_seeds(a.mean(axis=1), b.mean(axis=1)),
        photos=len(names),
        seeds=(len(first), len(second)),
        wins=int((over_photos > 0).sum()),
        smallest_p=smallest_p(int(np.count_nonzero(over_photos))),
    )


def common_photos(runs: Sequence[Scores]) -> list[str]:
    """Names that every run has, in the order of the first. Raises ValueError when there is none."""
    names = [name for name in runs[0] if all(name in run for run in runs)]
    if not names:
        raise ValueError(
            f"the results share no photo: one has {', '.join(list(runs[0])[:3])}, …, another "
            f"{', '.join(list(runs[-1])[:3])}, …; compare results of one benchmark"
        )
    return names


def signed_rank(differences: Table) -> float:
    """p of Wilcoxon's signed-rank test, two-sided, without differences of 0; 1 where all are 0."""
    from scipy.stats import wilcoxon

    unequal = differences[differences != 0]  # with zeros, scipy approximates where exact p are possible
    return float(wilcoxon(unequal).pvalue) if unequal.size else 1.0


def signed_ranks(differences: Sequence[Table] | Table) -> list[float]:
    """`signed_rank` of each row; those without zeros and ties, which scipy treats alike, in one call."""
    from scipy.stats import wilcoxon

    table = np.asarray(differences)
    if table.size == 0:
        return []
    steps = np.diff(np.sort(np.abs(table), axis=1), axis=1, prepend=0)
    plain = (steps != 0).all(axis=1)
    found = np.ones(len(table))
    if plain.any():
        found[plain] = wilcoxon(table[plain], axis=1).pvalue
    for index in np.flatnonzero(~plain):
        found[index] = signed_rank(table[index])
    return [float(p) for p in found]


def smallest_p(unequal: int) -> float:
    """The smallest p that Wilcoxon's test, two-sided, can give for so many photos with unequal scores."""
    return min(1.0, 2.0 ** (1 - unequal))


def fewest_photos(*, methods: int) -> int:
    """The fewest photos, with unequal scores, on which two of so many methods can differ significantly."""
    return next(n for n in count(1) if smallest_p(n) * math.comb(methods, 2) < 1 - LEVEL)


@dataclass(frozen=True)
class Least:
    """The smallest p, with Holm's correction, that any pair of methods can have.

    `unequal` of the `photos` have unequal scores in the pair that differs most.
    """

    p: float
    unequal: int
    photos: int
    pairs: int


def least_p(methods: Mapping[str, Sequence[Scores]]) -> Least:
    """What so many photos, equal scores and pairs leave possible for two or more methods."""
    names = common_photos([run for runs in methods.values() for run in runs])
    tables = [_table(runs, names) for runs in methods.values()]
    unequal = [int(np.count_nonzero(_differences(a, b))) for a, b in combinations(tables, 2)]
    return Least(min(1.0, smallest_p(max(unequal)) * len(unequal)), max(unequal), len(names), len(unequal))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment for testing several pairs at once (Scandinavian J. of Statistics, 1979)."""
    table = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(table)
    stepped = np.minimum(1.0, (len(table) - np.arange(len(table))) * table[order])
    adjusted = np.empty_like(table)
    adjusted[order] = np.maximum.accumulate(stepped)
    return [float(p) for p in adjusted]


@dataclass(frozen=True)
class Ranked:
    """One line of a leaderboard.

    `rank` is 1 plus the number of methods that are significantly better; `tied_with` are those that are not
    significantly different from this one, whatever their rank.
    """

    name: str
    score: Interval
    rank: int
    tied_with: tuple[str, ...] = ()

    @property
    def shared(self) -> bool:
        return bool(self.tied_with)

    @property
    def label(self) -> str:
        """The rank, with = where another method is not significantly different."""
        return f"{self.rank}{'=' if self.shared else ''}"


def leaderboard(methods: Mapping[str, Sequence[Scores]], *, seed: int = 0) -> list[Ranked]:
    """Methods by mean score, best first, with ranks that follow significant differences alone.

    A method is significantly better when the paired interval excludes 0 and Wilcoxon's p, adjusted by Holm
    over all pairs, is below 0.05. Means are over the photos that all methods have.
    """
    names = common_photos([run for runs in methods.values() for run in runs])
    tables = {name: _table(runs, names) for name, runs in methods.items()}
    order = sorted(methods, key=lambda name: -tables[name].mean())
    beats: dict[str, set[str]] = {name: set() for name in order}
    beaten_by: dict[str, set[str]] = {name: set() for name in order}
    pairs = _significant_pairs(order, tables)
    is_surely_better = _bounds(tables, seed) if pairs else lambda *_: False
    for better, worse in pairs:
        a, b = tables[better], tables[worse]
        if is_surely_better(better, worse) or _difference_interval(a, b, seed).low > 0:
            beats[better].add(worse)
            beaten_by[worse].add(better)
    lines = []
    for name in order:
        decided = {name} | beats[name] | beaten_by[name]
        tied = tuple(other for other in order if other not in decided)
        scores = tables[name].mean(axis=0)
        interval = bootstrap_mean(scores.tolist(), seed=seed)
        lines.append(Ranked(name, interval, 1 + len(beaten_by[name]), tied))
    return sorted(lines, key=lambda line: (line.rank, -line.score.mean))


def _significant_pairs(order: Sequence[str], tables: Mapping[str, Table]) -> list[tuple[str, str]]:
    """The pairs, in the order given, whose p with Holm's correction is below 0.05.

    Nothing is computed if so many pairs on so few photos can have no p below 1: 1,000 methods on 19 photos.
    """
    count, photos = math.comb(len(order), 2), tables[order[0]].shape[1]
    if smallest_p(photos) * count >= 1:
        return []
    p_values = holm(signed_ranks(_pairwise_differences([tables[name] for name in order])))
    return [pair for pair, p in zip(combinations(order, 2), p_values, strict=True) if p < 1 - LEVEL]


def _bounds(tables: Mapping[str, Table], seed: int) -> Callable[[str, str], bool]:
    """A cheap test whether one method is ahead of another in every draw of photos and seeds.

    The bootstrap interval is then above 0. This settles most pairs of a large sweep, as each method is drawn
    once.
    """
    sides = [{name: _resampled_means(table, seed, side) for name, table in tables.items()} for side in (0, 1)]

    def surely(better: str, worse: str) -> bool:
        paired = len(tables[better]) == len(tables[worse])
        return bool((sides[0][better] - sides[0 if paired else 1][worse]).min() > _ROUNDING)

    return surely


def _table(runs: Sequence[Scores], names: Sequence[str]) -> Table:
    """Seeds by photos."""
    table = np.array([[run[name] for name in names] for run in runs], dtype=np.float64)
    if not np.isfinite(table).all():
        wrong = names[int(np.flatnonzero(~np.isfinite(table).all(axis=0))[0])]
        raise ValueError(
            f"{wrong} has a score that is not finite, which cannot be averaged: is it restored to its "
            "original? Take it out of the photos"
        )
    return table


def _differences(a: Table, b: Table) -> Table:
    """a minus b by photo, means over seeds, without the rounding errors that hide zeros and ties."""
    return _without_rounding(a.mean(axis=0) - b.mean(axis=0))


def _pairwise_differences(tables: Sequence[Table]) -> Table:
    """`_differences` of every two tables (pairs,photos), in the order of `combinations`."""
    means = np.array([table.mean(axis=0) for table in tables])
    first, second = np.triu_indices(len(means), 1)
    return _without_rounding(means[first] - means[second])


def _without_rounding(differences: Table) -> Table:
    return np.asarray(np.round(differences / _ROUNDING) * _ROUNDING)


def _check_finite(table: Table) -> None:
    if not np.isfinite(table).all():
        raise ValueError("scores that are not finite cannot be averaged: is a restored photo its original?")


@lru_cache(maxsize=1)
def _drawn(photos: int, seed: int) -> Table:
    """`RESAMPLES` draws of photos with replacement, each as the weight of every photo, (draws,photos)."""
    return _weights(photos, np.random.default_rng(seed))


def _weights(count: int, random: np.random.Generator) -> Table:
    """Draws of photos or seeds as weights that sum to 1, widened for few (some are then below 0)."""
    drawn = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
    return np.asarray(1 / count + _widening(count) * (drawn - 1 / count))


def _widening(count: int) -> float:
    """How much wider Student's interval of a mean is than the bootstrap's, for so many photos or seeds.

    Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015: of 3 normal
    values, plain draws hold the mean in 75 % of the cases instead of 95 %.
    """
    from scipy.special import ndtri, stdtrit

    if count < 2:
        return 1.0
    upper = (1 + LEVEL) / 2
    return float(math.sqrt(count / (count - 1)) * stdtrit(count - 1, upper) / ndtri(upper))


@lru_cache(maxsize=16)
def _seeds_drawn(seeds: int, seed: int, side: int) -> Table:
    """`RESAMPLES` draws of seeds as weights, (draws,seeds); those of the two sides are independent."""
    return _weights(seeds, np.random.default_rng((seed, 1 + side)))


def _resampled_means(table: Table, seed: int, side: int = 0) -> Table:
    """The mean of a table (seeds,photos) in every draw of photos, and of seeds where there are several."""
    photos_drawn = _drawn(table.shape[1], seed)
    if len(table) == 1:
        return photos_drawn @ table[0]
    return np.asarray(np.einsum("rs,sr->r", _seeds_drawn(len(table), seed, side), table @ photos_drawn.T))


def _difference_interval(a: Table, b: Table, seed: int) -> Interval:
    """The interval of a minus b, two tables (seeds,photos); seeds are pairs where there are as many."""
    return _interval(a - b, seed) if len(a) == len(b) else _unpaired_interval(a, b, seed)


def _interval(table: Table, seed: int) -> Interval:
    from scipy.special import ndtr, ndtri

    _check_finite(table)
    mean = float(table.mean())
    if np.ptp(table) == 0:
        return Interval(mean, mean, mean)
    draws = np.sort(_resampled_means(table, seed))
    level = np.isclose(draws, mean, rtol=0, atol=1e-9 * np.ptp(table))  # few photos: many draws repeat
    below = np.mean((draws < mean) & ~level) + np.mean(level) / 2
    bias = ndtri(np.clip(below, 1 / RESAMPLES, 1 - 1 / RESAMPLES))
    over_photos = table.mean(axis=0)
    centred = over_photos - over_photos.mean()  # jackknife influence of a mean, up to a factor that cancels
    spread = float((centred**2).sum())
    acceleration = float((centred**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    tails = ndtri([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    shifted = ndtr(bias + (bias + tails) / (1 - acceleration * (bias + tails)))
    low, high = np.quantile(draws, shifted)
    return Interval(mean, float(low), float(high))


def _unpaired_interval(a: Table, b: Table, seed: int) -> Interval:
    """Percentile interval of the difference of means: photos drawn together, seeds separately per side."""
    sides = [_resampled_means(table, seed, side) for side, table in enumerate((a, b))]
    low, high = np.quantile(sides[0] - sides[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(a.mean() - b.mean()), float(low), float(high))


def _p_over_seeds(a: Table, b: Table) -> float | None:
    from scipy.stats import mannwhitneyu

    if min(len(a), len(b)) < 2:
        return None
    if len(a) == len(b):
        return signed_rank(a - b)
    p = float(mannwhitneyu(a, b).pvalue)
    return 1.0 if math.isnan(p) else p
