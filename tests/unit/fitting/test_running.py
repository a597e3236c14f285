"""What every fit gets from the one that runs it: progress, a time limit, cancelling, early stopping, and a
picture to fall back to."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from restora.fitting.base import Fit, Problem, Step, seeded
from restora.fitting.running import Cancelled, Progress, fit, run
from restora.fitting.stopping import EarlyStop
from restora.operators.blur import Blur, MirroredBlur
from restora.operators.pointwise import Mask

PROBLEM = Problem(torch.full((1, 1, 4, 4), 0.5))


class Scripted(Fit):
    """Gives the pictures that a function says, and counts how often it was asked."""

    name: ClassVar[str] = "scripted"
    tasks: ClassVar[tuple[str, ...]] = ("denoise",)

    def __init__(self, value: Callable[[int], float], *, steps: int = 10, pause: float = 0.0) -> None:
        self.value, self.steps, self.pause, self.asked = value, steps, pause, 0

    def __call__(self, problem: Problem, *, seed: int, device: torch.device) -> Iterator[Step]:
        for number in range(1, self.steps + 1):
            time.sleep(self.pause)
            self.asked = number
            value = self.value(number)
            yield Step(number, self.steps, torch.full_like(problem.degraded, value), value)


def test_progress_says_how_far_and_how_long() -> None:
    seen: list[Progress] = []
    outcome = run(Scripted(lambda n: n / 100, pause=0.01), PROBLEM, on_step=seen.append)
    assert (outcome.ended, outcome.step, outcome.steps, outcome.cut_short) == ("finished", 10, 10, "")
    assert outcome.picture.unique().tolist() == pytest.approx([0.1])
    assert [at.step for at in seen] == list(range(1, 11))
    assert {at.of for at in seen} == {10}
    assert seen[4].left == pytest.approx(seen[4].seconds, rel=0.01)
    assert seen[-1].left == 0


def test_a_time_limit_gives_the_picture_of_then() -> None:
    fit = Scripted(lambda n: n / 1000, steps=1000, pause=0.01)
    seen: list[Progress] = []
    outcome = run(fit, PROBLEM, max_time=0.1, on_step=seen.append)
    assert outcome.ended == "max_time"
    assert 2 <= outcome.step == fit.asked < 100
    assert outcome.picture.unique().tolist() == pytest.approx([outcome.step / 1000])
    assert all(at.left <= 0.1 for at in seen)
    assert outcome.cut_short == f"stopped by the time limit after {outcome.step} of 1,000 steps"
    one = run(fit, PROBLEM, max_time=1e-9)
    assert (one.step, one.cut_short) == (1, "stopped by the time limit after 1 of 1,000 steps"), (
        "one step at least"
    )


def test_enough_gives_the_picture_of_then() -> None:
    fit = Scripted(lambda n: n / 10)
    outcome = run(fit, PROBLEM, enough=lambda: fit.asked >= 3)
    assert (outcome.ended, outcome.step, outcome.cut_short) == ("stopped", 3, "stopped after 3 of 10 steps")
    assert outcome.picture.unique().tolist() == pytest.approx([0.3])
    assert run(fit, PROBLEM, enough=lambda: fit.asked == 10).ended == "finished"


def test_the_time_limit_is_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count()
    monkeypatch.setattr("restora.fitting.running.time.monotonic", lambda: next(clock))
    assert run(Scripted(lambda n: 0.5), PROBLEM, max_time=3).steps == 3


def test_cancelling_ends_it_at_once() -> None:
    fit = Scripted(lambda n: 0.5)
    with pytest.raises(Cancelled):
        run(fit, PROBLEM, cancelled=lambda: fit.asked == 3)
    assert fit.asked == 3


def test_what_is_not_finite_gives_way_to_the_picture_before() -> None:
    outcome = run(Scripted(lambda n: 0.4 if n < 5 else float("nan")), PROBLEM)
    assert (outcome.ended, outcome.step) == ("not finite", 4)
    assert outcome.cut_short.startswith("stopped after 4 of 10 steps, as the next was not finite")
    assert outcome.picture.unique().tolist() == pytest.approx([0.4])
    with pytest.raises(ValueError, match="no finite photo"):
        run(Scripted(lambda n: float("inf")), PROBLEM)


def test_early_stopping_takes_the_picture_where_outputs_rest() -> None:
    """Outputs that come to rest at 50 and move again: the answer is from there, found soon after."""

    def value(number: int) -> float:
        amplitude = 0.001 + 0.0001 * abs(number - 50)
        return 0.5 + amplitude * (-1) ** number

    fit = Scripted(value, steps=500)
    outcome = run(fit, PROBLEM, early_stop=EarlyStop(window=8, patience=30))
    assert outcome.ended == "early stop"
    assert 46 <= outcome.step <= 58
    assert outcome.steps == outcome.step + 30 == fit.asked
    assert outcome.picture.unique().tolist() == pytest.approx([value(outcome.step)])


def test_the_running_variance_is_that_of_the_window() -> None:
    stop = EarlyStop(window=5)
    outputs: list[Tensor] = [
        torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(n)) for n in range(9)
    ]
    found = [stop._variance(output) for output in outputs]
    assert found[:4] == [None] * 4
    for last in range(4, 9):
        exact = torch.stack(outputs[last - 4 : last + 1]).var(0, correction=0).mean().item()
        assert found[last] == pytest.approx(exact, rel=1e-4)


PHOTO = torch.full((1, 3, 6, 6), 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degraded": (PHOTO * 255).byte()}, r"got torch\.uint8 of shape \(1, 3, 6, 6\): use photo\.float"),
        ({"degraded": PHOTO * 255}, "values up to 127.5: divide 8-bit photos by 255"),
        ({"degraded": PHOTO * 255 - 227.5}, "values down to -100: divide 8-bit photos by 255"),
        ({"degraded": PHOTO[0]}, r"photo\[None\] for a single one"),
        ({"degraded": PHOTO.expand(2, -1, -1, -1)}, r"one photo, .* got \(2, 3, 6, 6\)"),
        ({"degraded": PHOTO * float("nan")}, "not finite"),
        ({"degraded": PHOTO.numpy()}, "got ndarray"),
        ({"degraded": PHOTO, "sigma": "a"}, "a number from 0 to 255, got 'a'"),
        ({"degraded": PHOTO, "sigma": -1.0}, "a number from 0 to 255, got -1.0"),
        ({"degraded": PHOTO, "sigma": True}, "a number from 0 to 255, got True"),
        ({"degraded": PHOTO, "operator": "blur"}, "the operator is a part of restora.operators"),
        ({"degraded": PHOTO, "operator": Mask(torch.ones(1, 1, 5, 6))}, "make H and W equal"),
        ({"degraded": PHOTO, "operator": Mask(torch.ones(1, 2, 6, 6))}, r"the mask is \(1, 2, 6, 6\)"),
        ({"degraded": PHOTO, "operator": Blur(torch.ones(65, 3) / 195)}, "3x65 pixels, the photo 6x6: crop"),
        ({"degraded": PHOTO, "operator": MirroredBlur(torch.ones(3, 65) / 195)}, "the kernel is 65x3"),
        ({"degraded": PHOTO, "operator": Mask(torch.zeros(1, 1, 6, 6))}, "nothing of the photo is known"),
    ],
)
def test_what_is_no_problem_is_refused_with_the_fix(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Problem(**arguments)
    assert "--" not in str(caught.value)


def test_a_photo_in_double_precision_is_taken_as_float32() -> None:
    assert Problem(PHOTO.double()).degraded.dtype == torch.float32


def test_fit_takes_a_problem_only() -> None:
    with pytest.raises(ValueError, match=r"give Problem\(photo\)"):
        fit("zs_n2n", PHOTO)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 2.5}, r"method\.steps=2\.5: expected a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: expected a number"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0, got -1"),
        ({"channels": 0}, "channels must be 1 or more, got 0"),
        ({"seed": 1.5}, r"seed must be a whole number of at most 64 bits, got 1\.5"),
        ({"max_time": "60s"}, "a number of seconds above 0, or None, got '60s'"),
        ({"max_time": float("nan")}, "a number of seconds above 0, or None, got nan"),
        ({"early_stop": "yes"}, "early_stop must be true, false"),
        ({"on_step": 3}, "on_step must be a function"),
        ({"device": "gpu"}, "there is no device 'gpu'"),
    ],
)
def test_settings_of_a_wrong_kind_are_refused_before_the_first_step(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit("zs_n2n", Problem(PHOTO), **{"steps": 1, "channels": 2, **settings})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dip", {"red_every": 0}, "red_every must be 1 or more"),
        ("dip", {"code_channels": 0}, "code_channels must be 1 or more"),
        ("dip", {"fall_back": -1.0}, "fall_back must be above 0"),
        ("dip", {"learning_rate": float("inf")}, "learning_rate must be above 0, got inf"),
        ("double_dip", {"scales": 0}, "scales must be 1 or more"),
        ("zssr", {"depth": 2}, "depth must be 3 or more"),
        ("red", {"denoiser": "median", "denoiser_sigma": 0.0}, "denoiser_sigma must be above 0"),
    ],
)
def test_methods_refuse_settings_out_of_range(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        fit(name, Problem(PHOTO), **settings)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_result_does_not_depend_on_the_mode_of_gradients(mode: Any) -> None:
    expected = fit("zs_n2n", Problem(PHOTO), steps=2, channels=2).picture
    with mode():
        photo = torch.full((1, 3, 6, 6), 0.5)
        assert torch.equal(fit("zs_n2n", Problem(photo), steps=2, channels=2).picture, expected)
        assert not torch.is_grad_enabled()


def test_a_fit_leaves_the_mode_of_gradients_alone() -> None:
    """Also between the steps of a method that needs none, and where it is cancelled."""
    seen: list[bool] = []

    def cancelled() -> bool:
        seen.append(torch.is_grad_enabled())
        return len(seen) == 2

    with pytest.raises(Cancelled) as kept:
        fit("pnp_hqs", Problem(PHOTO, sigma=5), denoiser=lambda x, _: x, cancelled=cancelled)
    assert kept.value is not None
    assert seen == [True, True]
    assert torch.is_grad_enabled()


def test_early_stopping_starts_anew_with_each_photo() -> None:
    stop = EarlyStop(window=2, patience=5)
    first, second = (run(Scripted(lambda n: 0.5, steps=20), PROBLEM, early_stop=stop) for _ in range(2))
    assert (first.step, first.steps) == (second.step, second.steps)
    assert second.ended == "early stop"


@pytest.mark.parametrize("name", ["dip", "double_dip"])
def test_photos_too_small_for_the_halvings_name_the_scales_that_fit(name: str) -> None:
    photo = Problem(torch.rand(1, 3, 5, 8))
    with pytest.raises(ValueError, match="8x5 pixels leave nothing then: set scales=2"):
        fit(name, photo, scales=3, channels=2, steps=1)
    assert fit(name, photo, scales=2, channels=2, steps=1).step == 1
    with pytest.raises(ValueError, match="leave nothing then: use another method"):
        fit(name, Problem(torch.rand(1, 3, 2, 2)), scales=1, channels=2, steps=1)


def test_threads_do_not_share_their_seeds() -> None:
    """While one fit draws its first weights no other one seeds the generator that it draws from."""
    entered = threading.Event()

    def other() -> None:
        with seeded(2):
            entered.set()

    with seeded(1):
        expected = torch.rand(4)
    with seeded(1):
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.05)
        assert torch.equal(torch.rand(4), expected)
    thread.join()
    assert entered.is_set()


def test_the_generators_of_gpus_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` would seed them too, and nothing would put them back."""
    reseeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", reseeded.append)
    drawn = []
    for _ in range(2):
        with seeded(7):
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    assert not reseeded
