"""What a degradation says of itself as noise is what its draws do: its centres, and independence."""

import pytest
import torch

from restora.config import build, parts
from restora.degradations.base import Degradation
from restora.degradations.compose.composition import Chain
from restora.keyed import KeyedGenerator

MADE: dict[str, Degradation] = {
    name: build(node, "degradation") for name, node in parts("degradation").items()
}
DRAWS = 3000


def draws(name: str, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    levels = torch.linspace(0.2, 0.8, size)
    clean = (0.5 * levels[:, None] + 0.5 * levels).expand(DRAWS, 3, size, size)
    return clean[0], MADE[name](clean, KeyedGenerator(torch.arange(DRAWS))).image


@pytest.mark.parametrize("name", [name for name, made in MADE.items() if "mean" in made.centres])
def test_the_mean_of_noisy_photos_is_the_photo(name: str) -> None:
    clean, noisy = draws(name)
    allowed = 5 * noisy.std(0) / DRAWS**0.5 + 1e-3
    assert ((noisy.mean(0) - clean).abs() <= allowed).all()


@pytest.mark.parametrize(
    "name", [name for name, made in MADE.items() if {"median", "mode"} & made.centres and name != "identity"]
)
def test_the_median_of_noisy_photos_is_the_photo(name: str) -> None:
    clean, noisy = draws(name, 24 if "text" in name else 8)
    allowed = 6.5 * noisy.std(0) / DRAWS**0.5 + 1e-3
    assert ((noisy.median(0).values - clean).abs() <= allowed).all()


@pytest.mark.parametrize("name", [name for name, made in MADE.items() if made.independent])
def test_neighbours_know_nothing_of_each_other(name: str) -> None:
    clean, noisy = draws(name)
    rest = (noisy - clean).sign() * (noisy - clean).abs().sqrt()
    for a, b in ((rest[..., :-1], rest[..., 1:]), (rest[..., :-1, :], rest[..., 1:, :])):
        together = (a * b).mean() / rest.square().mean().clamp(min=1e-12)
        assert abs(float(together)) < 0.02


def test_noise_on_noise_keeps_the_mean_where_what_follows_is_symmetric() -> None:
    gaussian, poisson = (MADE[name] for name in ("gaussian_noise", "poisson_noise"))
    for stages, centres in (
        ([poisson], {"mean"}),
        ([gaussian], {"mean", "median", "mode"}),
        ([poisson, gaussian], {"mean"}),
        ([gaussian, poisson], set()),  # which sees values below 0 that it cannot keep
        ([MADE["jpeg"], gaussian], set()),
    ):
        assert Chain(stages={str(n): stage for n, stage in enumerate(stages)}).centres == centres


def test_enough_of_them_are_noise() -> None:
    known = {name for name, made in MADE.items() if made.centres}
    assert {"gaussian_noise", "poisson_noise", "speckle_noise", "film_grain", "text_overlay"} <= known
    assert not known & {"jpeg", "gaussian_blur", "inpaint_brush", "low_light", "haze"}
    assert {name for name, made in MADE.items() if made.gaussian} >= {
        "gaussian_noise",
        "gaussian_noise_range",
    }
