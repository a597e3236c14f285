"""What is lost, and the mask that says so: 1 = known."""

import math

import pytest
import torch
from photos import generator, grey_card, photos

from restora.degradations.compose.composition import OneOf
from restora.degradations.missing.brush_strokes import BrushStrokes, covered_by_segments
from restora.degradations.missing.holes import Holes
from restora.degradations.missing.masking import Masking
from restora.degradations.missing.random_rectangles import RandomRectangles
from restora.degradations.missing.scratches import Scratches
from restora.degradations.missing.text_overlay import TextOverlay
from restora.degradations.noise.gaussian_noise import GaussianNoise

MASKINGS: dict[str, Masking] = {
    "rectangles": RandomRectangles(count=3, area=(0.02, 0.1), fill=0.5),
    "brush": BrushStrokes(fill=0.5),
    "holes": Holes(stage=OneOf(stages={"scratches": Scratches(), "letters": TextOverlay()}), fill=0.5),
}


@pytest.mark.parametrize("name", list(MASKINGS))
def test_known_pixels_are_untouched_and_lost_ones_filled(name: str) -> None:
    clean = photos(8)
    image, mask = MASKINGS[name](clean, generator(8))
    assert mask is not None
    assert mask.shape == (8, 1, 48, 60)
    assert mask.unique().tolist() == [0, 1]
    known = mask.expand_as(clean) == 1
    assert torch.equal(image[known], clean[known])
    assert (image[~known] == 0.5).all()
    assert len({float(m.mean()) for m in mask}) > 4


def test_holes_are_where_their_stage_leaves_a_mark_and_need_its_mask() -> None:
    clean, scratches = photos(8), Scratches()
    drawn = Holes(stage=scratches)
    params = drawn.sample((8, 3, 48, 60), generator(8))
    assert torch.equal(drawn.condition(clean, params), scratches.condition(clean, params["stage"]))
    with pytest.raises(ValueError, match="GaussianNoise gives no mask of its own size"):
        Holes(stage=GaussianNoise(sigma=25))


def test_random_erasing_is_one_rectangle_of_its_area_and_aspect() -> None:
    erasing = RandomRectangles(count=1, area=(0.02, 0.4), aspect=(0.3, 3.3))
    _, mask = erasing(grey_card(0.5, batch=200, size=64), generator(200))
    assert mask is not None
    shares, aspects = [], []
    for lost in mask[:, 0] == 0:
        rows, columns = lost.any(1), lost.any(0)
        assert lost.sum() == rows.sum() * columns.sum()  # a full rectangle
        shares.append(lost.float().mean().item())
        aspects.append((rows.sum() / columns.sum()).item())
    assert sum(shares) / 200 == pytest.approx(0.21, abs=0.03)
    assert 0.015 < min(shares) < 0.05
    assert 0.36 < max(shares) < 0.42
    assert math.log(min(aspects)) == pytest.approx(-math.log(max(aspects)), abs=0.35)
    # borders are reached on all four sides, and the middle is lost the most
    risk = 1 - mask.mean(0)[0]
    for border in (risk[0], risk[-1], risk[:, 0], risk[:, -1]):
        assert border.max() > 0
        assert border.mean() < risk[24:40, 24:40].mean() / 4


def test_strokes_are_all_points_within_their_radius() -> None:
    starts = torch.tensor([[[10.0, 12.0], [30.0, 5.0]]])
    ends = torch.tensor([[[22.0, 40.0], [30.0, 5.0]]])
    covered = covered_by_segments(starts, ends, torch.tensor([[4.0, 6.0]]), (40, 50))[0]
    for y in range(40):
        for x in range(50):
            near = False
            for (ay, ax), (by, bx), radius in (((10, 12), (22, 40), 4.0), ((30, 5), (30, 5), 6.0)):
                py, px, dy, dx = y + 0.5 - ay, x + 0.5 - ax, by - ay, bx - ax
                t = min(1, max(0, (py * dy + px * dx) / max(dy * dy + dx * dx, 1e-6)))
                near |= math.hypot(py - t * dy, px - t * dx) <= radius
            assert bool(covered[y, x]) == near


def test_brush_strokes_are_longer_than_wide_and_joined() -> None:
    brush = BrushStrokes(strokes=1, vertices=1, width=0.06, length=0.5)
    _, mask = brush(grey_card(0.5, batch=64, size=96), generator(64))
    assert mask is not None
    area = (mask == 0).sum((1, 2, 3)).float()
    # a stroke of 48 by 5.8 pixels with round ends, unless the photo's border cuts it
    assert area.max() == pytest.approx(48 * 5.76 + math.pi * 2.88**2, rel=0.05)
    assert area.median() > 100


def test_brush_widths_scale_with_the_photo() -> None:
    brush = BrushStrokes(strokes=3, width=0.1)
    small = brush(grey_card(0.5, batch=16, size=32), generator(16)).condition
    large = brush(grey_card(0.5, batch=16, size=128), generator(16)).condition
    assert small is not None
    assert large is not None
    assert torch.allclose(small.mean((1, 2, 3)), large.mean((1, 2, 3)), atol=0.04)


@pytest.mark.parametrize("overlay", [Scratches(), TextOverlay()], ids=["scratches", "text"])
def test_overlays_leave_the_known_pixels(overlay: Scratches | TextOverlay) -> None:
    clean = photos(6, 80, 90)
    image, mask = overlay(clean, generator(6))
    assert mask is not None
    known = (mask == 1).expand_as(clean)
    assert (image - clean)[known].abs().max() < 1 / 255
    assert (image - clean)[~known].abs().mean() > 0.05
    assert 0.5 < mask.mean() < 0.995
    assert image.min() >= 0
    assert image.max() <= 1


def test_scratches_run_down_the_photo() -> None:
    _, mask = Scratches(count=1, dust=0, tilt=5, width=1.0)(grey_card(0.5, batch=40, size=96), generator(40))
    assert mask is not None
    lost = mask[:, 0] == 0
    drawn = lost.flatten(1).any(1)
    tall, wide = lost.any(2).sum(1)[drawn].float(), lost.any(1).sum(1)[drawn].float()
    assert 8 < drawn.sum() < 40  # up to one scratch
    assert (tall > wide).float().mean() > 0.85


def test_scratches_are_of_paper_or_dirt_and_as_many_as_drawn() -> None:
    clean = grey_card(0.5, batch=120, size=64)
    alone = Scratches(count=3, dust=0, tilt=0, width=1.0, opacity=1.0)
    params = alone.sample(tuple(clean.shape), generator(120))
    image = alone.apply(clean, params)
    lost = params["cover"] > 0.5
    light = (image[:, :1] > 0.5)[lost].float().mean()
    assert light == pytest.approx(2 / 3, abs=0.12)
    untouched = (params["cover"].flatten(1).amax(1) == 0).float().mean()
    assert untouched == pytest.approx(1 / 4, abs=0.12)  # none, one, two or three with equal chance
    wide = (params["cover"] > 0).sum(3)
    assert wide.float().mean() < 6


def test_text_is_as_opaque_and_as_high_as_asked() -> None:
    overlay = TextOverlay(count=1, height=0.25, tilt=0, opacity=0.7, texts=["HHH"])
    params = overlay.sample((16, 3, 96, 96), generator(16))
    cover = params["cover"]
    whole = cover.amax((1, 2, 3)) > 0.5
    assert whole.sum() > 10
    assert cover.max() == pytest.approx(0.7, abs=0.01)
    # a line is 24 pixels high, its capitals about half of that
    high = (cover > 0.35).any(3).sum((1, 2)).float()
    assert 9 < high.max() < 24
    inks = params["colour"][:, :, 0, 0]
    assert inks.min() >= 0
    assert inks.max() <= 1


def test_no_line_is_cut_off_that_fits() -> None:
    overlay = TextOverlay(count=1, height=0.2, tilt=20, opacity=1.0, texts=["HHH"])
    cover = overlay.sample((64, 3, 70, 90), generator(64))["cover"]
    areas = cover.sum((1, 2, 3))
    assert areas.min() > 0.9 * areas.max()
    rows, columns = (torch.where(cover.amax(axes) > 0)[-1] for axes in ((1, 3), (1, 2)))
    assert min(rows.min(), columns.min()) < 8  # and yet everywhere
    assert rows.max() > 62
    assert columns.max() > 82


def test_text_is_legible_and_its_own_lines_are_used() -> None:
    lines = ["H"]
    overlay = TextOverlay(count=1, height=0.5, tilt=0, opacity=1.0, texts=lines)
    image, mask = overlay(grey_card(0.5, batch=12, size=64), generator(12))
    assert mask is not None
    lost = (mask[:, 0] == 0).flatten(1).sum(1)
    assert (lost > 20).sum() >= 10
    assert (lost < 64 * 32).all()
    assert not torch.equal(image[0], image[1])
    with pytest.raises(ValueError, match="texts"):
        TextOverlay(texts=[])
