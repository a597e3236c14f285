"""The leaderboard of a group of runs: its rows, and sentences that sum them up.

Runs that differ only in their seed are the seeds of one method. Methods are ranked by
`evaluation/statistics.py` over the held-out photos, in the monitored metric, and ranks differ only where the
difference is significant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from restora.evaluation.statistics import Interval, Ranked, Scores, fewest_photos, paired_difference
from restora.evaluation.statistics import leaderboard as ranked
from restora.monitor import Monitor
from restora.reporting.baselines import Baseline
from restora.reporting.runs import Group, PhotoScore, Run, place, score_of, signed
from restora.reporting.seeds import seeds_of_methods
from restora.words import AGAINST_NOISY, three_digits

Kind = Literal["run", "seed", "classical", "input"]
"""A method (one run, or the mean of its seeds), a seed of it, a classical filter, the degraded photos."""
ABSENT = "–"


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard.

    `gain` is in dB over the degraded photos, `photo_seconds` the mean per photo, `scores` PSNR by photo,
    one mapping per seed, and `monitored` the same for the monitored metric, signed so that more is better;
    `score` is the mean of that.
    """

    kind: Kind
    label: str
    family: str
    psnr: float | None
    ssim: float | None
    gain: float | None
    parameters: float | None = None
    macs: float | None = None
    fit_seconds: float | None = None
    photo_seconds: float | None = None
    run: Run | None = None
    scores: tuple[Scores, ...] = ()
    rank: Ranked | None = None
    monitor: Monitor = field(default_factory=Monitor)
    monitored: tuple[Scores, ...] = ()
    score: float | None = None
    mean: Interval | None = None
    against_noisy: bool = False
    """Whether the figures compare with other noisy versions of the photos."""

    @property
    def is_worse(self) -> bool:
        """Whether the restored photos are worse than the degraded ones, rounded to two decimals.

        Never so if the figures compare with noisy photos, as these do not tell.
        """
        return not self.against_noisy and self.gain is not None and round(self.gain, 2) < 0

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the mean PSNR over photos; None for a single photo."""
        return self.mean if self.scores and len(self.scores[0]) > 1 else None


def leaderboard(group: Group, baselines: Sequence[Baseline]) -> list[Row]:
    """Methods by rank with their seeds, classical filters and the degraded photos among them.

    Runs without a score come last.
    """
    before, monitor = group.input_psnr, group.monitor
    seeds = seeds_of_methods(group)
    methods = {label: _method_row(label, runs, monitor) for label, runs in seeds.items()}
    by_psnr = _ranks({label: row.scores for label, row in methods.items() if row.scores})
    ranks = by_psnr
    if monitor.name != "psnr":
        ranks = _ranks({label: row.monitored for label, row in methods.items() if row.monitored})
    blocks: list[list[Row]] = []
    for label, row in methods.items():
        own = [_run_row(run, monitor) for run in seeds[label]] if len(seeds[label]) > 1 else []
        seed_rows = [replace(one, kind="seed") for one in own]
        mean = by_psnr[label].score if label in by_psnr else None
        blocks.append([replace(row, rank=ranks.get(label), mean=mean), *seed_rows])
    for baseline in baselines:
        blocks.append([_classical_row(baseline, before, monitor)])
    if before is not None:
        blocks.append([_input_row(group, before)])
    blocks.sort(key=lambda block: place(block[0].psnr, block[0].score))
    noisy = group.against_noisy
    return [replace(row, against_noisy=noisy) for block in blocks for row in block]


def _ranks(methods: Mapping[str, Sequence[Scores]]) -> dict[str, Ranked]:
    """Rank by method; empty if not all methods have finite scores of the same photos."""
    if not methods:
        return {}
    try:
        return {line.name: line for line in ranked(methods)}
    except ValueError:
        return {}


def _method_row(label: str, runs: Sequence[Run], monitor: Monitor) -> Row:
    """The only run of a method, or the means over its seeds."""
    rows = [_run_row(run, monitor) for run in runs]
    if len(rows) == 1:
        return replace(rows[0], label=label)
    return Row(
        "run",
        f"{label} ({len(rows)} seeds)",
        rows[0].family,
        _mean([row.psnr for row in rows]),
        _mean([row.ssim for row in rows]),
        _mean([row.gain for row in rows]),
        parameters=rows[0].parameters,
        macs=rows[0].macs,
        fit_seconds=_mean([row.fit_seconds for row in rows]),
        photo_seconds=_mean([row.photo_seconds for row in rows]),
        scores=tuple(scores for row in rows for scores in row.scores),
        monitor=monitor,
        monitored=tuple(scores for row in rows for scores in row.monitored),
        score=_mean([row.score for row in rows]),
    )


def _run_row(run: Run, monitor: Monitor) -> Row:
    scores = by_photo(run.photos)
    chosen = {name: signed(value, monitor) or 0.0 for name, value in run.by_photo(monitor.name).items()}
    return Row(
        "run",
        run.label,
        run.text("family").replace("_", " "),
        run.psnr,
        run.ssim,
        run.gain,
        parameters=run.number("parameters"),
        macs=run.number("macs_256"),
        fit_seconds=run.number("cost", "fit_seconds"),
        photo_seconds=run.seconds_per_photo,
        run=run,
        scores=(scores,) if scores and run.psnr is not None else (),
        monitor=monitor,
        monitored=(chosen,) if chosen and run.psnr is not None else (),
        score=score_of(run, monitor),
    )


def _input_row(group: Group, before: float) -> Row:
    name = f"input_{group.monitor.name}"
    known = next((run.number("test", name) for run in group.scored), None)
    score = signed(known, group.monitor)
    return Row(
        "input", "degraded input", "", before, group.input_ssim, 0.0, monitor=group.monitor, score=score
    )


def _classical_row(baseline: Baseline, before: float | None, monitor: Monitor) -> Row:
    return Row(
        "classical",
        baseline.name.replace("_", " "),
        "classical filter",
        baseline.psnr,
        baseline.ssim,
        None if before is None else baseline.psnr - before,
        photo_seconds=baseline.seconds,
        scores=(by_photo(baseline.images),),
        monitor=monitor,
        score=signed({"psnr": baseline.psnr, "ssim": baseline.ssim}.get(monitor.name), monitor),
    )


def by_photo(photos: Sequence[PhotoScore]) -> dict[str, float]:
    """PSNR by the photo's name, for photos that have one."""
    return {photo.name: photo.psnr for photo in photos if photo.psnr is not None}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def verdict(rows: Sequence[Row]) -> list[str]:
    """The results of the leaderboard in sentences; empty if no run is finished."""
    runs = [row for row in rows if row.kind == "run" and row.psnr is not None]
    if not runs:
        return _unscored(rows)
    against = [f"All figures are {AGAINST_NOISY}."] if runs[0].against_noisy else []
    sentences = against + _first(runs) + _worse(runs)
    classical = next((row for row in rows if row.kind == "classical"), None)
    if classical is not None:
        sentences.append(_against(runs[0], classical))
    families: dict[str, float] = {}
    for row in runs:
        if row.gain is not None and row.family not in families:
            families[row.family] = row.gain
    if len(families) > 1:
        gains = ", ".join(f"{family} {gain:+.2f}" for family, gain in families.items())
        sentences.append(f"Gain in dB over the degraded photos, best run of each family: {gains}.")
    return sentences + _of_one_seed(runs) + _unscored(rows)


def _unscored(rows: Sequence[Row]) -> list[str]:
    """Names finished runs without figures of held-out photos, with their best validation."""
    named = []
    for row in rows:
        if row.run is not None and row.run.status == "finished" and row.psnr is None:
            best = row.run.number("metrics", "best", row.run.monitor.metric)
            known = "" if best is None else f" (best validation {row.run.monitor.in_words(best)})"
            named.append(f"{row.label}{known}")
    if not named:
        return []
    return [
        f"No figures of held-out photos: {_listed(named)}. Runs have them if their data have a test "
        "part with clean photos."
    ]


def _first(runs: Sequence[Row]) -> list[str]:
    """The leading method, and the others that are not significantly different from it."""
    best = runs[0]
    scored = f"{best.label}, {_monitored(best)}{decimals(best.psnr, 2)} dB{_against_input(best)}."
    if len(runs) == 1:
        return [scored]
    if best.rank is None:
        return [f"Highest mean: {scored}", "Not ranked: it has no finite scores of the others' photos."]
    if not best.rank.shared:
        return [f"Best: {scored}"]
    count = len(best.scores[0])
    photos = f"{count} held-out photo{'s' if count > 1 else ''}"
    tied = list(best.rank.tied_with)
    others = "the others" if len(tied) > 3 and len(tied) == len(runs) - 1 else _listed(tied)
    least = fewest_photos(methods=sum(row.rank is not None for row in runs))
    few = f" At least {least} photos are needed for significance." if count < least else ""
    return [
        f"Highest mean: {scored}",
        f"On the {photos} it is not significantly different from {others}.{few}",
    ]


def _of_one_seed(runs: Sequence[Row]) -> list[str]:
    """What unequal ranks are of, unless all methods have several seeds."""
    ranked = [row for row in runs if row.rank is not None]
    if all(row.rank.rank == 1 for row in ranked if row.rank) or all(len(row.scores) > 1 for row in ranked):
        return []
    return ["A method with one seed is ranked as it was trained this once: another seed may change its rank."]


def _monitored(row: Row) -> str:
    """The figure of the monitored metric; empty for PSNR, which follows anyway."""
    value = signed(row.score, row.monitor)
    return "" if value is None or row.monitor.name == "psnr" else f"{row.monitor.in_words(value)}, "


def _against_input(row: Row) -> str:
    if row.gain is None:
        return ""
    if row.against_noisy:
        return f", {decimals(row.gain, 2, sign=True)} dB compared with the degraded photos"
    if row.is_worse:
        return f", {decimals(-row.gain, 2)} dB worse than the degraded photos"
    return f", {decimals(row.gain, 2, sign=True)} dB over the degraded photos"


def _worse(runs: Sequence[Row]) -> list[str]:
    """A sentence on the methods that make photos worse."""
    worse = [row.label for row in runs if row.is_worse]
    if not worse or len(runs) == 1:
        return []
    if len(worse) == len(runs):
        return ["All runs are worse than their input: their photos are better left as they are."]
    return [f"Worse than the input: {_listed(worse)}."]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _against(best: Row, classical: Row) -> str:
    """The difference of the leading method from the best classical filter, and whether it is significant."""
    assert best.psnr is not None
    assert classical.psnr is not None
    lead = best.psnr - classical.psnr
    where = "ahead of" if lead > 0 else "behind"
    what = (
        f"{abs(lead):.2f} dB {where} the best classical filter ({classical.label}, {classical.psnr:.2f} dB)"
    )
    try:
        difference = paired_difference(best.scores, classical.scores)
    except ValueError:
        return f"It is {what}."
    doubt = "" if difference.decided else "; the difference is not significant"
    return f"It is {what}{doubt}."


def rank_label(row: Row) -> str:
    """1, 2, …; with = if at least one other method is not significantly different."""
    return "" if row.rank is None else row.rank.label


def leads(row: Row) -> bool:
    """Whether no other method is significantly better."""
    return row.rank is not None and row.rank.rank == 1


def legend(rows: Sequence[Row]) -> str:
    """Names the metric that ranks if it is not PSNR, and explains the = of a rank; empty without both."""
    lines = []
    monitor = next((row.monitor for row in rows if row.rank is not None), Monitor())
    if monitor.name != "psnr":
        better = "higher" if monitor.direction == "max" else "lower"
        lines.append(f"ranked by {monitor.name} of the held-out photos, {better} is better")
    if any(row.rank is not None and row.rank.shared for row in rows):
        lines.append("= not significantly different from at least one other method")
    return "; ".join(lines)


def decimals(value: float | None, places: int, *, sign: bool = False) -> str:
    return ABSENT if value is None else f"{value:{'+' if sign else ''}.{places}f}"


def count(value: float | None) -> str:
    """1234567 -> 1.23 M."""
    if value is None:
        return ABSENT
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:  # which three digits round up to it
            return f"{three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """75 -> 1 min 15 s."""
    if seconds is None:
        return ABSENT
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
