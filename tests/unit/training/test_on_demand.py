"""On-demand learning: training photos follow validation, validation photos do not."""

from types import SimpleNamespace

import pytest
import torch

from restora.data.mixture import MixtureData, Part
from restora.data.module import PhotoData
from restora.data.sources import Folder
from restora.degradations.compose.composition import Chain, OnDemand
from restora.degradations.identity import Identity
from restora.degradations.noise.gaussian_noise import GaussianNoise
from restora.keyed import KeyedGenerator, image_key
from restora.training import poison
from restora.training.on_demand import FollowValidation

NAMES = [f"photo{number}" for number in range(400)]
KEYS = torch.tensor([image_key(name) for name in NAMES])


def levels() -> OnDemand:
    return OnDemand(stages={"mild": GaussianNoise(sigma=5), "strong": GaussianNoise(sigma=80)})


def strong(degradation, keys: torch.Tensor) -> torch.Tensor:
    """Which photos (B,) got the strong noise."""
    noisy = degradation(torch.full((len(keys), 1, 16, 16), 0.5), KeyedGenerator(keys)).image
    return noisy.std(dim=(1, 2, 3)) > 0.15


def validated(degradation: OnDemand, psnr: dict[str, float]) -> FollowValidation:
    """A callback after a validation in which the photos of each stage scored so much."""
    stages = degradation.stage_of(KEYS)
    scores = [{"name": name, "psnr": psnr[stage]} for name, stage in zip(NAMES, stages, strict=True)]
    callback = FollowValidation(degradation)
    callback.on_validation_end(SimpleNamespace(sanity_checking=False), SimpleNamespace(scores=scores))
    return callback


def test_what_is_restored_worse_is_drawn_more_and_validation_stays() -> None:
    degradation = levels()
    before = strong(degradation, KEYS)
    assert before.tolist() == [stage == "strong" for stage in degradation.stage_of(KEYS)]
    assert torch.equal(strong(degradation.in_training, KEYS), before)
    validated(degradation, {"mild": 40.0, "strong": 10.0})
    assert degradation.shares == pytest.approx({"mild": 0.2, "strong": 0.8})
    assert torch.equal(strong(degradation, KEYS), before)
    assert 0.74 < strong(degradation.in_training, KEYS).float().mean() < 0.86


def test_shares_are_kept_in_the_checkpoint() -> None:
    degradation, again = levels(), levels()
    state = validated(degradation, {"mild": 30.0, "strong": 20.0}).state_dict()
    FollowValidation(again).load_state_dict(state)
    assert again.shares == degradation.shares == pytest.approx({"mild": 0.4, "strong": 0.6})


def test_a_stage_without_validation_photos_counts_as_the_mean(caplog) -> None:
    degradation = levels()
    callback = FollowValidation(degradation)
    name = next(n for n, s in zip(NAMES, degradation.stage_of(KEYS), strict=True) if s == "mild")
    module = SimpleNamespace(scores=[{"name": name, "psnr": 30.0}])
    callback.on_validation_end(SimpleNamespace(sanity_checking=False), module)
    assert degradation.shares == {"mild": 0.5, "strong": 0.5}
    assert "no validation photo goes through strong" in caplog.text


def test_it_is_the_whole_degradation_or_refused(tmp_path) -> None:
    inside = Chain(stages={"levels": levels()})
    with pytest.raises(ValueError, match="only where it is the whole degradation"):
        PhotoData(
            source=Folder(root=tmp_path),
            store_dir=tmp_path,
            degradation=inside,
            patch_size=8,
            batch_size=1,
            steps_per_epoch=1,
        )


def test_what_is_noted_of_a_skipped_step_is_what_training_drew(tmp_path) -> None:
    degradation = levels()
    degradation.in_training.weights = [0.0, 1.0]
    data = PhotoData(
        source=Folder(root=tmp_path), store_dir=tmp_path, degradation=degradation, patch_size=8, batch_size=4,
        steps_per_epoch=1,
    )  # fmt: skip
    trainer = SimpleNamespace(datamodule=data)
    assert poison._parameters(trainer, (8, 3, 8, 8), KEYS[:8])["choice"] == [1] * 8
    assert poison._shares(trainer) == {"mild": 0.0, "strong": 1.0}


def test_of_a_mixture_nothing_is_noted_that_its_parts_did_not_draw(tmp_path) -> None:
    parts = {name: Part(source=Folder(root=tmp_path), degradation=GaussianNoise(sigma=5)) for name in "ab"}
    data = MixtureData(
        parts=parts, store_dir=tmp_path, degradation=Identity(), patch_size=8, batch_size=4, steps_per_epoch=1
    )
    assert poison._parameters(SimpleNamespace(datamodule=data), (8, 3, 8, 8), KEYS[:8]) is None
