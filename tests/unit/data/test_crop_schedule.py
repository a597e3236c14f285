"""The order of crops: permutations, the same for any split of the work, and for a run that was resumed."""

import pytest

from restora.data.schedule import Crop, CropSchedule, ResumableSampler, Stage, read_stages

STAGES = [Stage(0, 64, 12), Stage(5, 96, 6), Stage(9, 128, 2)]


def crops(
    batches: int, *, photos: int = 7, seed: int = 3, world_size: int = 1, rank: int = 0
) -> list[list[Crop]]:
    schedule = CropSchedule(seed=seed, photos=photos, stages=STAGES, rank=rank, world_size=world_size)
    return [schedule.crops(batch) for batch in range(batches)]


def test_each_pass_shows_every_photo_once() -> None:
    shown = [crop.photo for batch in crops(12) for crop in batch]
    passes = [shown[at : at + 7] for at in range(0, len(shown) - 6, 7)]
    assert len(passes) == 12
    assert all(sorted(order) == list(range(7)) for order in passes)
    assert len({tuple(order) for order in passes}) == 12, "passes repeat an order"


def test_no_key_is_used_twice() -> None:
    keys = [crop.key for batch in crops(12) for crop in batch]
    assert len(set(keys)) == len(keys)
    other = [crop.key for batch in crops(12, seed=4) for crop in batch]
    assert not set(keys) & set(other)


def test_processes_together_are_one_process() -> None:
    parts = [crops(12, world_size=2, rank=rank) for rank in range(2)]
    together = [[crop for part in batch for crop in part] for batch in zip(*parts, strict=True)]
    assert together == crops(12)


def test_stages_change_the_sizes_and_waste_no_photo() -> None:
    schedule = CropSchedule(seed=1, photos=5, stages=STAGES)
    batches = [schedule.crops(batch) for batch in range(15)]
    assert [len(batch) for batch in batches] == [12] * 5 + [6] * 4 + [2] * 6
    assert [schedule.stage(batch).patch_size for batch in (0, 4, 5, 8, 9, 99)] == [64, 64, 96, 96, 128, 128]
    for batch in range(16):
        assert schedule.samples_before(batch) == sum(len(crops) for crops in batches[:batch])


def test_stages_begin_at_steps_where_several_batches_make_one() -> None:
    schedule = CropSchedule(seed=1, photos=5, stages=STAGES, batches_per_step=4)
    sizes = [schedule.stage(batch).patch_size for batch in (0, 19, 20, 35, 36, 99)]
    assert sizes == [64, 64, 96, 96, 128, 128]
    assert schedule.samples_before(22) == 20 * 12 + 2 * 6


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    forward = crops(12)
    schedule = CropSchedule(seed=3, photos=7, stages=STAGES)
    assert [schedule.crops(batch) for batch in reversed(range(12))] == forward[::-1]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"start_step": 3, "patch_size": 8, "batch_size": 1}], "begin at start_step 0"),
        ([{"start_step": 0, "patch_size": 8, "batch_size": 1}] * 2, "each later than the one before"),
        ([{"start_step": 0, "patch_size": 0, "batch_size": 1}], "at least 1"),
        ([{"start_step": 0, "patch": 8, "batch_size": 1}], "batch_size, patch_size, start_step; got"),
    ],
)
def test_stages_are_checked(stages: list[dict[str, int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_stages(stages, 64, 16)


def test_without_stages_there_is_one() -> None:
    assert read_stages(None, 64, 16) == (Stage(0, 64, 16),)


def test_an_epoch_begins_where_the_run_is() -> None:
    done = 0
    sampler = ResumableSampler(steps_per_epoch=5, batches_done=lambda: done)
    assert list(sampler) == [0, 1, 2, 3, 4]
    done = 13
    assert list(sampler) == [13, 14, 15, 16, 17]
    assert len(sampler) == 5
