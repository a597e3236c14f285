"""Missing pixels from known ones: a plane, and an exact solution of Laplace's equation."""

import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from restora.networks.layers.filling import SWEEPS, filled_from_around


def plane_with_holes() -> tuple[torch.Tensor, torch.Tensor]:
    row = torch.linspace(0, 1, 96)
    photo = (row[:, None] + row).expand(2, 3, 96, 96) / 2
    known = torch.ones(2, 1, 96, 96)
    known[0, :, 40:50, 40:50] = 0
    known[1, :, 16:80, 10:84] = 0
    return photo, known


@pytest.mark.parametrize(
    ("sweeps", "narrow", "wide"), [(0, 4e-3, 0.1), (SWEEPS, 1e-3, 1e-2), (16, 1e-5, 2e-3)]
)
def test_a_plane_comes_back_and_known_pixels_are_unchanged(sweeps: int, narrow: float, wide: float) -> None:
    photo, known = plane_with_holes()
    filled = filled_from_around(photo, known, sweeps)
    lost = known.expand_as(photo) == 0
    torch.testing.assert_close(filled[~lost], photo[~lost])
    assert (filled - photo)[0].abs().max() < narrow
    assert (filled - photo)[1].abs().max() < wide
    # whatever was in the holes
    assert torch.equal(filled, filled_from_around(photo.where(~lost, 0.7), known, sweeps))
    assert (filled_from_around(photo, torch.zeros_like(known), sweeps) == 0).all()


def test_with_enough_sweeps_it_solves_the_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(1, 1, 32, 64, generator=generator, dtype=torch.float64)
    known = (torch.rand(1, 1, 32, 64, generator=generator) > 0.2).double()
    known[..., 8:20, 30:44] = 0
    error = [(filled_from_around(photo, known, n) - exact(photo, known)).abs().max() for n in (0, SWEEPS, 64)]
    assert error[0] > 2 * error[1]
    assert error[2] < 1e-6


def exact(photo: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Each lost pixel the mean of the 3 x 3 pixels around it, the border repeated, by a sparse solver."""
    height, width = photo.shape[-2:]
    given = known[0, 0].numpy().astype(bool)
    matrix, right = lil_matrix((given.size, given.size)), np.where(given, photo[0, 0].numpy(), 0).ravel()
    for y in range(height):
        for x in range(width):
            at = y * width + x
            matrix[at, at] = 1
            for v, u in ((v, u) for v in (y - 1, y, y + 1) for u in (x - 1, x, x + 1) if not given[y, x]):
                matrix[at, np.clip(v, 0, height - 1) * width + np.clip(u, 0, width - 1)] -= 1 / 9
    return torch.from_numpy(spsolve(matrix.tocsr(), right).reshape(1, 1, height, width))


def test_in_half_precision_it_is_computed_in_single() -> None:
    photo, known = plane_with_holes()
    filled = filled_from_around(photo.bfloat16(), known.bfloat16(), SWEEPS)
    assert filled.dtype == torch.bfloat16
    assert torch.equal(filled, filled_from_around(photo.bfloat16().float(), known, SWEEPS).bfloat16())
