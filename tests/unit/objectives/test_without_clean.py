"""Learning from noisy photos: what each objective estimates, that it never sees a clean photo, and what it
refuses."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.families.residual_cnn import initialise
from restora.keyed import KeyedGenerator
from restora.networks.base import Network
from restora.networks.dncnn import DnCNN
from restora.networks.ffdnet import FFDNet
from restora.networks.nafnet import NAFNet
from restora.networks.noise2noise_unet import Noise2NoiseUNet
from restora.networks.srresnet import SRResNet
from restora.objectives.base import Noise, Objective, Setting, Step
from restora.objectives.blind2unblind import Blind2Unblind, surroundings
from restora.objectives.neighbor2neighbor import Neighbor2Neighbor, draw_pairs, pick
from restora.objectives.noise2noise import Noise2Noise
from restora.objectives.noise2void import Noise2Void
from restora.objectives.recorrupted import Recorrupted
from restora.objectives.supervised import Supervised
from restora.objectives.sure import Sure
from restora.types import Batch

SIGMA = 25 / 255
ALL: dict[str, Callable[[], Objective]] = {
    "noise2noise": Noise2Noise,
    "noise2noise, l1": lambda: Noise2Noise(norm="l1"),
    "noise2noise, l0": lambda: Noise2Noise(norm="l0"),
    "noise2void": lambda: Noise2Void(percent=1.0),
    "noise2void, median": lambda: Noise2Void(percent=1.0, replacement="median"),
    "neighbor2neighbor": Neighbor2Neighbor,
    "blind2unblind": lambda: Blind2Unblind(cell=3),
    "recorrupted": Recorrupted,
    "sure": Sure,
}


def clean_photos(count: int, size: int = 32) -> Tensor:
    """Smooth photos with an edge, the same each time."""
    ramp = torch.linspace(0.2, 0.7, size)
    photo = (ramp[:, None] + ramp.flip(0)) / 2 + 0.2 * (ramp > 0.45)
    return photo.expand(count, 3, size, size).clone()


def noisy_batch(clean: Tensor, *, first_key: int = 0, keep_clean: bool = True) -> Batch:
    keys = torch.arange(first_key, first_key + len(clean))
    noise = GaussianNoise(sigma=25)
    made = noise(clean, KeyedGenerator(keys))

    def again(keys: Tensor) -> Tensor:
        return noise(clean, KeyedGenerator(keys)).image

    names = [str(int(key)) for key in keys]
    kept = clean if keep_clean else None
    return Batch(kept, made.image, made.condition, names, keys=keys, redegrade=again)


def step(network: Network, batch: Batch, progress: float = 0.5) -> Step:
    return Step(network=network, batch=batch, progress=progress, number=1, record=lambda *_: None)


def total(objective: Objective, now: Step) -> Tensor:
    return torch.stack(list(objective(now).values())).sum()


def dncnn(**arguments: int) -> DnCNN:
    return DnCNN(**{"in_channels": 3, "depth": 3, "channels": 8, "batch_norm": False} | arguments)


class Blur(Network):
    """Each pixel is the mean of 5 x 5, itself included."""

    in_channels = out_channels = 3

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return nn.functional.avg_pool2d(x, 5, stride=1, padding=2)


@pytest.mark.parametrize("name", ALL)
def test_it_never_sees_the_clean_photo_and_teaches_every_weight(name: str) -> None:
    network, objective = dncnn(), ALL[name]()
    batch = noisy_batch(clean_photos(2))
    without = replace(batch, clean=None)
    spoilt = replace(batch, clean=torch.full_like(batch.degraded, float("nan")))
    values = [total(objective, step(network, given)) for given in (without, spoilt)]
    assert torch.equal(values[0], values[1])
    values[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "network",
    [
        NAFNet(width=8, encoder_blocks=[1], middle_blocks=1, decoder_blocks=[1]),
        FFDNet(in_channels=3, depth=3, channels=8),
        Noise2NoiseUNet(channels=3),
    ],
    ids=lambda network: type(network).__name__,
)
def test_it_works_with_other_networks_at_odd_sizes(name: str, network: Network) -> None:
    batch = noisy_batch(clean_photos(2, 33)[..., :31], keep_clean=False)
    assert total(ALL[name](), step(network, batch)).isfinite()


@pytest.mark.parametrize("name", ALL)
def test_its_random_numbers_are_the_samples_own(name: str) -> None:
    """The loss of a photo is the same alone and among others, and another for another key."""
    network, objective = dncnn(), ALL[name]()
    batch = noisy_batch(clean_photos(3), keep_clean=False)
    batch = replace(batch, target=batch.degraded.flip(-1), redegrade=None) if "noise2noise" in name else batch
    alone = [total(objective, step(network, one)) for one in batch.photos()]
    again = [total(objective, step(network, one)) for one in batch.photos()]
    assert torch.equal(torch.stack(alone), torch.stack(again))
    if "noise2void" not in name:  # whose mean is over the hidden pixels of all
        torch.testing.assert_close(torch.stack(alone).mean(), total(objective, step(network, batch)))
    if name not in ("noise2noise", "noise2noise, l1", "noise2noise, l0", "blind2unblind"):  # which draw none
        other = replace(batch, keys=batch.keys + 7)
        assert not torch.equal(total(objective, step(network, other)), total(objective, step(network, batch)))


@pytest.mark.parametrize("replacement", ["neighbour", "median", "neighbour_or_itself"])
def test_the_blind_spot_is_blind(replacement: str) -> None:
    """No hidden pixel's value reaches the answer in its place, though all around it does."""
    objective = Noise2Void(percent=3.0, replacement=replacement)
    noisy = torch.rand(4, 3, 24, 24, requires_grad=True)
    shown, hidden = objective.hide(noisy, KeyedGenerator(torch.arange(4)))
    restored = Blur()(shown)
    spots = hidden.nonzero()
    assert len(spots) >= 20
    seen = []
    for sample, _, row, column in spots:
        answer = restored[sample, :, row, column].sum()
        (gradient,) = torch.autograd.grad(answer, noisy, retain_graph=True)
        seen.append(float(gradient[sample, :, row, column].abs().max()))
        assert int((gradient != 0).sum()) >= 20  # all around it
    assert (max(seen) == 0) == (replacement != "neighbour_or_itself")


def test_every_pixel_is_hidden_once_and_its_answer_does_not_see_it() -> None:
    objective = Blind2Unblind()
    noisy = torch.rand(2, 3, 9, 11, requires_grad=True)
    assert torch.equal(objective.masks(noisy).sum(0), torch.ones(1, 1, 9, 11))
    batch = Batch(None, noisy, None, ["a", "b"], keys=torch.arange(2))
    blind = objective.blind_answer(step(Blur(), batch))
    for row, column in ((0, 0), (4, 5), (8, 10), (3, 7)):
        (gradient,) = torch.autograd.grad(blind[1, :, row, column].sum(), noisy, retain_graph=True)
        assert float(gradient[1, :, row, column].abs().max()) == 0
        assert int((gradient != 0).sum()) >= 20  # all around it
        assert float(gradient[0].abs().max()) == 0
    assert torch.allclose(surroundings(torch.full((1, 3, 4, 5), 0.3)), torch.tensor(0.3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(surroundings(torch.full((1, 3, 4, 5), 0.3)), torch.tensor(0.3))


def test_the_visible_answer_comes_in_with_a_weight_that_grows_and_no_gradient() -> None:
    objective, batch = Blind2Unblind(), noisy_batch(clean_photos(2))
    assert [objective.weight_of_visible(share) for share in (0, 0.5, 0.8, 1)] == [2, 2, 2, 20]
    assert objective.weight_of_visible(0.9) == pytest.approx(11)
    network = dncnn()
    now = step(network, batch, progress=1.0)
    hidden = objective.blind_answer(now) - batch.degraded
    seen = (network(batch.degraded) - batch.degraded).detach()
    expected = (hidden + 20 * seen).square().mean() + hidden.square().mean()
    found = total(objective, now)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, network.parameters()) for value in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_hidden_pixels_are_everywhere_and_as_many_as_asked_for() -> None:
    objective = Noise2Void(percent=1.0)
    _, hidden = objective.hide(torch.rand(4000, 1, 20, 20), KeyedGenerator(torch.arange(4000)))
    share = hidden.mean(0)[0]
    assert float(share.mean()) == pytest.approx(0.01, rel=0.03)
    assert float(share.min()) > 0.004
    assert float(share.max()) < 0.018
    apart = nn.functional.max_pool2d(hidden, 5, stride=1, padding=2) * hidden
    crowded = nn.functional.avg_pool2d(hidden, 5, stride=1, padding=2, divisor_override=1) * apart
    assert float(crowded.max()) == 1  # no two within a window


def test_a_replacement_is_a_neighbour() -> None:
    """Of a photo whose pixels are numbered, each is replaced by one that is at most two away."""
    numbered = torch.arange(30.0 * 30).view(1, 1, 30, 30)
    objective = Noise2Void(percent=2.0)
    shown, hidden = objective.hide(numbered, KeyedGenerator(torch.tensor([3])))
    assert torch.equal(shown[hidden == 0], numbered[hidden == 0])
    was, now = numbered[hidden == 1].long(), shown[hidden == 1].long()
    assert len(was) > 10
    for apart in ((was // 30 - now // 30).abs(), (was % 30 - now % 30).abs()):
        assert int(apart.max()) <= 2
    assert (was != now).all()


@pytest.mark.parametrize("replacement", ["neighbour", "median"])
def test_no_hidden_value_is_shown_anywhere(replacement: str) -> None:
    objective, keys = Noise2Void(percent=6.0, replacement=replacement), torch.arange(100)
    noisy = torch.rand(100, 1, 12, 13)
    shown, hidden = objective.hide(noisy, KeyedGenerator(keys))
    others, _ = objective.hide(noisy + 9 * hidden, KeyedGenerator(keys))
    assert torch.equal(shown, others)


def test_at_a_corner_the_median_is_that_of_the_pixels_there() -> None:
    photo = torch.tensor([[9.0, 1.0, 2.0, 9.0], [4.0, 8.0, 5.0, 9.0], [6.0, 7.0, 3.0, 9.0]])
    corner, objective = torch.zeros(1, 1, dtype=torch.int64), Noise2Void(radius=2, replacement="median")
    found = objective._medians(photo.view(1, 1, -1), corner, corner, (3, 4))
    assert found.item() == 4.5  # of 1 to 8


def test_stein_s_estimate_is_the_squared_error() -> None:
    network = dncnn()
    with torch.no_grad():
        clean = clean_photos(96)
        batch = noisy_batch(clean)
        estimate = float(total(Sure(), step(network, batch)))
        error = float((network(batch.degraded) - clean).square().mean())
        other = float(total(Sure(), step(Blur(), batch)))
        blurred = float((Blur()(batch.degraded) - clean).square().mean())
    assert estimate == pytest.approx(error, rel=0.02)
    assert other == pytest.approx(blurred, rel=0.05)
    assert blurred < 0.5 * error


def test_stein_s_small_difference_is_computed_without_autocast() -> None:
    class Watched(Blur):
        def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
            seen.add(torch.is_autocast_enabled("cpu"))
            return super().restore(x, condition)

    seen: set[bool] = set()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total(Sure(), step(Watched(), noisy_batch(clean_photos(1))))
    assert seen == {False}


def test_recorrupted_photos_teach_the_clean_one() -> None:
    """The loss is the squared error to the clean photo plus what no network can change."""
    clean, alpha = clean_photos(64), 0.5
    batch = noisy_batch(clean)
    value = float(total(Recorrupted(alpha=alpha), step(Blur(), batch)))
    drawn = KeyedGenerator(batch.keys).fork("recorrupted").normal(clean.shape[1:]) * SIGMA
    error = float((Blur()(batch.degraded + alpha * drawn) - clean).square().mean())
    assert value - SIGMA**2 * (1 + 1 / alpha**2) == pytest.approx(error, abs=0.02 * SIGMA**2 / alpha**2)


def test_halves_are_made_of_adjacent_pixels() -> None:
    numbered = torch.arange(20.0 * 20).view(1, 1, 20, 20)
    first, second = draw_pairs(numbered, KeyedGenerator(torch.tensor([5])))
    a, b = pick(numbered, first)[0, 0].long(), pick(numbered, second)[0, 0].long()
    assert a.shape == (10, 10)
    distance = (a // 20 - b // 20).abs() + (a % 20 - b % 20).abs()
    assert (distance == 1).all()
    for half in (a, b):
        assert torch.equal(half // 20 // 2, torch.arange(10)[:, None].expand(10, 10))
        assert torch.equal(half % 20 // 2, torch.arange(10).expand(10, 10))


def test_what_neighbours_differ_in_is_taken_off() -> None:
    """The network that knows the clean photo has the noise as its loss, though neighbours differ."""
    clean = clean_photos(16)
    batch = noisy_batch(clean)

    class Oracle(Blur):
        def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
            return clean if x.shape == clean.shape else half

    generator = KeyedGenerator(batch.keys).fork("neighbor2neighbor")
    first, second = draw_pairs(clean, generator)
    half = pick(clean, first)
    terms = Neighbor2Neighbor(consistency=2.0)(step(Oracle(), batch, progress=0.25))
    noise = (pick(batch.degraded, second) - pick(clean, second)).square().mean()
    torch.testing.assert_close(terms["consistency"], 0.5 * noise)
    assert float(terms[""]) > float(noise)
    assert "consistency" not in Neighbor2Neighbor()(step(Oracle(), batch, progress=0.0))


def test_the_power_goes_from_two_to_nothing() -> None:
    batch = noisy_batch(clean_photos(2))
    squares = total(Noise2Noise(), step(Blur(), batch))
    torch.testing.assert_close(total(Noise2Noise(norm="l0"), step(Blur(), batch, progress=0)), squares)
    half = total(Noise2Noise(norm="l1"), step(Blur(), batch))
    torch.testing.assert_close(total(Noise2Noise(norm="l0"), step(Blur(), batch, progress=0.5)), half)
    assert float(total(Noise2Noise(norm="l0"), step(Blur(), batch, progress=1.0))) == pytest.approx(1)


class Plain(Network):
    """Four convolutions whose answer is the photo, not what is to be taken off it."""

    in_channels = out_channels = 3

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1)]
        for channels in (16, 16, 3):
            layers += [nn.LeakyReLU(0.1), nn.Conv2d(16, channels, 3, padding=1)]
        self.body = nn.Sequential(*layers)

    def restore(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return self.body(x)


def trained(objective: Objective, steps: int = 100, *, plain: bool = False) -> float:
    """PSNR on another photo, after a few steps from the same weights on the same crops."""
    import skimage.data

    torch.manual_seed(1)
    network: Network = Plain() if plain else dncnn(channels=12)
    if isinstance(network, DnCNN):
        initialise(network, "he")
        with torch.no_grad():
            list(network.parameters())[-2].mul_(0.1)  # begins near the noisy photo
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255
    crops = nn.functional.unfold(photo, 24, stride=24).view(3, 24, 24, -1).permute(3, 0, 1, 2)
    for number in range(steps):
        order = torch.arange(8) * 31 + number * 8
        batch = noisy_batch(crops[order % len(crops)], first_key=number * 8)
        loss = total(objective, step(network, batch, progress=number / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - number / steps)
        optimizer.step()
    clean = torch.from_numpy(skimage.data.chelsea()[50:178, 100:228]).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        error = (network(noisy_batch(clean, first_key=10**6).degraded).clamp(0, 1) - clean).square().mean()
    return float(-10 * error.log10())


@pytest.mark.slow
def test_noisy_targets_teach_what_clean_ones_do() -> None:
    """Noise2Noise within 0.1 dB of clean targets after equal steps; single noisy photos teach less, and far
    more than nothing (the noisy photos have 20.2 dB)."""
    with_clean = trained(Supervised(loss=nn.MSELoss()))
    with_noisy = trained(Noise2Noise())
    assert abs(with_clean - with_noisy) < 0.1
    alone = {name: trained(ALL[name]()) for name in ("neighbor2neighbor", "recorrupted", "sure")}
    assert min(alone.values()) > 23.5, alone
    assert max(alone.values()) < with_clean + 0.1, alone


@pytest.mark.slow
def test_the_visible_answer_copies_no_noise() -> None:
    """24.45 dB of 20.2, as Noise2Void's 24.17; the answers at hidden pixels have 24.06."""
    assert trained(Blind2Unblind(), 150, plain=True) > 23.8


GAUSSIAN = Noise("the degradation GaussianNoise", frozenset({"mean", "median", "mode"}), True, True)
POISSON = Noise("the degradation PoissonNoise", frozenset({"mean"}), True)
GRAIN = Noise("the degradation FilmGrain", frozenset({"mean", "median", "mode"}))
TEXT = Noise("the degradation TextOverlay", frozenset({"median"}))
JPEG = Noise("the degradation JPEG")
SETTING = Setting(network=dncnn(), patch_size=48, noise=GAUSSIAN)
ALONE = Setting(network=dncnn(), patch_size=48, has_clean=False)


@pytest.mark.parametrize(
    ("make", "setting", "said"),
    [
        (Noise2Noise, replace(SETTING, noise=TEXT), "norm=l1"),
        (lambda: Noise2Noise(norm="l1"), replace(SETTING, noise=POISSON), "norm=l2"),
        (Noise2Noise, replace(SETTING, noise=JPEG), "objective=supervised"),
        (Noise2Noise, ALONE, "these come once"),
        (Noise2Void, replace(SETTING, noise=GRAIN), "not independent from pixel to pixel"),
        (Neighbor2Neighbor, replace(SETTING, noise=TEXT), "its mean is not the photo"),
        (Noise2Void, replace(SETTING, patch_size=16), "data.patch_size=22"),
        (Blind2Unblind, replace(SETTING, patch_size=7), "data.patch_size=8"),
        (Blind2Unblind, replace(SETTING, noise=GRAIN), "not independent from pixel to pixel"),
        (Neighbor2Neighbor, replace(SETTING, network=SRResNet(scale=2, channels=4, blocks=1)), "×2"),
        (Sure, replace(SETTING, noise=POISSON), "white Gaussian"),
        (Sure, ALONE, r"set objective\.sure\.sigma"),
        (lambda: Recorrupted(sigma=25.0), SETTING, r"set objective\.recorrupted\.sigma=null"),
        (
            lambda: Supervised(loss=nn.L1Loss()),
            replace(SETTING, noise=POISSON, noisy_target=True),
            "median of the degradation PoissonNoise is not the photo: set loss=mse",
        ),
        (
            lambda: Supervised(loss=nn.MSELoss()),
            replace(SETTING, noise=TEXT, noisy_target=True),
            "set loss=l1",
        ),
        (
            lambda: Supervised(loss=nn.MSELoss()),
            replace(SETTING, noise=JPEG, noisy_target=True),
            "data.target=clean",
        ),
    ],
)
def test_what_the_mathematics_does_not_allow_is_refused(
    make: Callable[[], Objective], setting: Setting, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        make().check(setting)


def test_what_it_allows_is_not_refused() -> None:
    for make in ALL.values():
        make().check(SETTING)
    for objective in (
        Noise2Void(),
        Neighbor2Neighbor(),
        Blind2Unblind(),
        Sure(sigma=25),
        Recorrupted(sigma=25),
    ):
        objective.check(ALONE)
    Noise2Noise().check(replace(SETTING, noise=POISSON))
    Noise2Noise(norm="l1").check(replace(SETTING, noise=TEXT))
    Noise2Noise().check(replace(SETTING, noise=None))  # pairs of noisy photos
    Supervised(loss=nn.MSELoss()).check(replace(SETTING, noise=POISSON, noisy_target=True))


def test_levels_of_the_0_to_1_scale_are_refused_with_those_of_the_8_bit_one() -> None:
    for make in (Sure, Recorrupted):
        with pytest.raises(
            ValueError, match=rf"objective\.{make.__name__.lower()}\.sigma .*: 0\.1 of \[0,1\] is 25\.5"
        ):
            make(sigma=0.1)
        with pytest.raises(ValueError, match="from 1 to 255"):
            make(sigma=2500)
