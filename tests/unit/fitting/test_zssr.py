"""ZSSR: better than bicubic on a photo whose patches recur, from the photo alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from restora.fitting.base import Problem
from restora.fitting.running import run
from restora.fitting.zssr import ZeroShotSuperResolution, median
from restora.operators.pointwise import Identity
from restora.operators.resizing import Bicubic


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def test_recurring_edges_come_out_sharper_than_by_bicubic() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    clean = ((rows * 0.31 + columns * 0.17).sin() > 0).float() * 0.6 + 0.2
    clean = clean.expand(1, 1, 64, 64)
    operator = Bicubic(2)
    small = operator.A(clean)
    fit = ZeroShotSuperResolution(steps=150, learning_rate=3e-3, channels=16, depth=5)
    outcome = run(fit, Problem(small, operator), seed=1)
    bicubic = operator.start(small)
    assert outcome.picture.shape == clean.shape
    assert psnr(outcome.picture, clean) > psnr(bicubic, clean) + 1
    assert psnr(operator.A(outcome.picture), small) > psnr(operator.A(bicubic), small) + 3
    again = ZeroShotSuperResolution(steps=2, channels=8, depth=3)
    first = run(again, Problem(small, operator), seed=1).picture
    assert torch.equal(run(again, Problem(small, operator), seed=1).picture, first)


@pytest.mark.slow
def test_it_ends_where_the_loss_is_at_rest() -> None:
    flat = torch.full((1, 1, 16, 16), 0.5)
    fit = ZeroShotSuperResolution(steps=3000, channels=2, depth=3)
    outcome = run(fit, Problem(flat, Bicubic(2)))
    assert outcome.ended == "finished"
    assert outcome.steps < 3000


def test_the_median_of_eight_turns_is_not_darker_than_they_are() -> None:
    answers = torch.rand(8, 1, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(np.median(answers.numpy(), axis=0))
    torch.testing.assert_close(median(answers), expected)
    assert torch.equal(median(answers[:1]), answers[0])


def test_it_refuses_what_it_is_not_for() -> None:
    with pytest.raises(ValueError, match="enlarges photos"):
        run(ZeroShotSuperResolution(), Problem(torch.rand(1, 3, 32, 32), Identity()))
    with pytest.raises(ValueError, match="pixels or more on each side"):
        run(ZeroShotSuperResolution(), Problem(torch.rand(1, 3, 6, 32), Bicubic(2)))
