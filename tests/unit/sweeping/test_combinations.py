"""Combinations: those that are made of the first of their kind equal what is composed, in every form of
override; and which of many are checked."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from restora.config import ConfigError, compose, jobs_of
from restora.sweeping import combinations, space

TINY = ["network=dncnn_small", "logger.mode=disabled"]
GRIDS: list[tuple[list[str], bool]] = [
    (["seed=1,2,3", "family.optimizer.lr=1e-3,-2e-3,null"], True),
    (["name='a,b',\"it's\",null,'null','1',1,c d", "data.seed=range(3,0,-1)"], True),
    (["run_dir=a,b"], False),
    (["~callbacks.test_images", "++seed=1,2", "network.depth=3,4"], True),
    (["+trainer.limit_val_batches=1,2"], False),
    (["name='${seed}',x", "seed=4,5"], True),
    (["family.optimizer={lr:1e-3},{lr:1e-4}", "degradation.sigma=5,[5,50]"], False),
    (["data.stages=null,[{patch_size:8,batch_size:2,share:1}]", "init=null,zoo:denoise"], False),
    (["trainer.max_time=null,1h,{minutes:90}", "precision=32-true,bf16-mixed"], False),
    (["loss=glob(l1*)", "objective=[supervised],supervised", "trainer.gradient_clip_val=null,1"], True),
    (["loss@family.loss=l1,mse", "data=sample,folder", "compile=true,auto"], True),
    (["experiments=quickstart/dncnn", "data.batch_size=4,64", "seed=1,2"], True),
    (
        ["experiments=quickstart/dncnn", "data.batch_size=4", "seed=1,2", "monitor.metric=val/ssim,val/psnr"],
        True,
    ),
    (["experiments=denoise/dncnn", "degradation=jpeg", "degradation.quality=10,20,[10,90]"], True),
    (["seed=1,2", "hydra.sweep.subdir=${hydra.job.num}_${seed}"], True),
    (["seed=1,2", "hydra.sweep.subdir=${hydra.job.override_dirname}"], False),
]


@pytest.mark.parametrize(("words", "made"), GRIDS)
def test_a_combination_is_what_a_single_run_with_its_values_is(
    words: list[str], made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those `made` of another, and all others."""
    monkeypatch.setattr(combinations, "check", lambda *_, **__: None)
    above = [word for word in words if combinations.is_hydras(word)]
    grid = [*TINY, *(word for word in words if word not in above)]
    found = combinations.combinations(grid, above, print)
    names = [job.subfolder(number) for number, job in enumerate(found)]
    assert (len({id(job.hydra) for job in found}) < len(found)) == made
    for number, (job, typed) in enumerate(zip(found, jobs_of(grid), strict=True)):
        alone = combinations.composed(typed, above, number)
        assert (job.config, job.identity, job.settings) == (alone.config, alone.identity, alone.settings)
        assert (job.words, names[number]) == (typed, alone.subfolder(number))


def test_many_combinations_are_checked_by_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 whatever they are, then what says something new; a number between two others does not."""
    checked: list[list[str]] = []
    monkeypatch.setattr(combinations, "check", lambda job, **_: checked.append(job.words))
    rates = ",".join(str(rate / 1000) for rate in (1, 90, *range(2, 90)))
    combinations.combinations([*TINY, f"family.optimizer.lr={rates}", "seed=1,2,3"], [], print)
    assert len(checked) == 64  # the seed alone is nothing new
    checked.clear()
    combinations.combinations([*TINY, f"family.optimizer.lr={rates},1.5", "network.depth=3,5"], [], print)
    assert len(checked) == 65
    assert "family.optimizer.lr=1.5" in checked[-1]


def test_the_last_line_of_progress_counts_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(combinations, "check", lambda *_, **__: None)
    seconds = itertools.count()
    monkeypatch.setattr(combinations.time, "monotonic", lambda: float(next(seconds)))
    said: list[str] = []
    combinations.combinations([*TINY, "seed=1,2,3,4,5"], [], said.append)
    assert said == [f"composed and checked {number} of 5 jobs" for number in (4, 5)]


def test_what_sets_a_refused_job_apart_is_said() -> None:
    with pytest.raises(ConfigError, match=r"depth.*\(in the job network\.depth=1\)"):
        combinations.combinations([*TINY, "network.depth=4,1"], [], print)


@pytest.mark.parametrize("read", [lambda word: compose("train", [word]), lambda word: jobs_of([word])])
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=1,", r"seed=1,: .* quotes: 'seed=\"1,\"'"),
        ("data.source.root=a=b", r"quotes: 'data.source.root=\"a=b\"'"),
        ("name=[1,2", r"quotes: 'name=\"\[1,2\"'"),
        ("seed=choice()", r"seed=choice\(\): empty choice"),
        ("seed", "write seed=VALUE"),
        ("--sed=1", "'--sed' is not a valid key"),
    ],
)
def test_what_hydras_grammar_does_not_read_is_said_with_the_word(
    word: str, said: str, read: Callable[[str], Any]
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(word)
    assert "expecting" not in str(caught.value)


def test_an_interval_that_stands_for_whole_numbers_says_what_to_write() -> None:
    error = ConfigError("network.depth=2.0: expected a whole number")
    words = ["network.depth=tag(log,interval(2,7))", "seed=1"]
    said = space.in_whole_numbers(words, error)
    assert str(said).endswith("write 'network.depth=int(tag(log,interval(2,7)))'")
    assert space.in_whole_numbers(["seed=interval(0,1)"], error) is error
