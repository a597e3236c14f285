"""Restores one photo with a restorer: the channels that the network gets, bit depth and alpha.

| network | grey photo | colour photo |
|---|---|---|
| 1 -> 1 | as it is | each of R, G, B by itself |
| 3 -> 3 | repeated to three channels, the mean of the three outputs | as it is |
| 1 -> 3 (colourises) | coloured | reduced to luminance (BT.601), then coloured |

A network of three channels that was trained to colourise gets the luminance three times and gives colour.
One of several frames is refused: copies of a photo share its noise, which a video network keeps as detail.

With a mask of lost pixels, all other pixels keep their own numbers, bit for bit.

Legend: H height, W width, C channels, s scale.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restora.artifact.noise_level import network_noise_level
from restora.artifact.restorer import Progress, Restorer
from restora.image import FULL_RANGE_LUMA, levels
from restora.photos.decoding import Pixels
from restora.photos.files import Photo
from restora.words import for_videos

NO_WHITE = "no pixel is white: paint what is to be filled in white"


def restore_photo(
    photo: Photo,
    restorer: Restorer,
    *,
    lost: Photo | None = None,
    progress: Progress | None = None,
    strength: float = 1.0,
    self_ensemble: bool = False,
) -> Photo:
    """The restored photo: same bit depth and metadata, H*s by W*s; alpha is kept, enlarged with the photo.

    `lost` is a picture of the same size, white where the photo is lost, for models conditioned on a mask;
    elsewhere the photo's own numbers are kept, if the model neither enlarges nor colours. `strength` blends
    from the photo as it is (0, enlarged if needed) to the restored one (1). With `self_ensemble` the result
    is the mean over the photo's eight turns and mirrorings, for eight times the work.
    """
    fill = None if restorer.description is None else restorer.description.fill

    def answer(x: Tensor, known: Tensor | None) -> Tensor:
        if known is not None and fill is not None:
            x = x.where(known > 0, fill)
        if self_ensemble:
            return over_all_turns(x, known, partial(restore_planes, restorer=restorer), progress)
        return restore_planes(x, known, restorer, progress)

    return restored_by(answer, photo, scale=restorer.scale, lost=lost, strength=strength)


def restored_by(
    answer: Callable[[Tensor, Tensor | None], Tensor],
    photo: Photo,
    *,
    scale: int = 1,
    lost: Photo | None = None,
    strength: float = 1.0,
) -> Photo:
    """`restore_photo` by any function of a photo and its known pixels.

    The function takes (1,C,H,W) in [0,1] and the known pixels (1,1,H,W) or None, and gives
    (1,C',H*s,W*s).
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be a number from 0 to 1, got {strength:g}")
    x = _floats(photo)
    known = None if lost is None else _known(lost, photo)
    y = _enlarged(x, scale) if strength == 0 else mixed(x, answer(x, known), strength)
    restored = _finished(y[0], photo, scale)
    return restored if lost is None else _keep_known(restored, photo, lost)


def restore_photos(
    photos: Sequence[Photo], restorer: Restorer, *, progress: Progress | None = None
) -> list[Photo]:
    """Several photos of one size and number of channels, each as `restore_photo` gives it.

    Small photos use an accelerator fully only together.
    """
    y = restore_planes(torch.cat([_floats(photo) for photo in photos]), None, restorer, progress)
    return [_finished(one, photo, restorer.scale) for one, photo in zip(y, photos, strict=True)]


def estimated_sigma(photo: Photo, *, channels: int = 3) -> float:
    """The noise level of a photo's visible pixels, on the 8-bit scale, for a network of so many channels."""
    visible = None if photo.alpha is None else torch.from_numpy(photo.alpha > 0)
    return min(network_noise_level(_floats(photo)[0], channels, visible), 255.0)


def blended(restored: Photo, photo: Photo, strength: float) -> Photo:
    """The blend by `strength` from the photo (0), enlarged if the result is larger, to the result (1)."""
    if strength == 1:
        return restored
    old, new = (
        torch.from_numpy(held.pixels.astype(np.float32)).div_(held.white).permute(2, 0, 1)[None]
        for held in (photo, restored)
    )
    y = mixed(old, new, strength)[0]
    return restored.replaced(_quantised(y.permute(1, 2, 0), restored), restored.alpha)


def mixed(given: Tensor, y: Tensor, strength: float) -> Tensor:
    """(1,C,H,W) and (1,C',H*s,W*s) -> the latter's shape: the share `strength` of y, the rest of `given`."""
    if strength == 1:
        return y
    return _enlarged(given, y.shape[-1] // given.shape[-1]).lerp(y, strength)


def _keep_known(restored: Photo, photo: Photo, lost: Photo) -> Photo:
    """The restored photo with the photo's own numbers wherever the mask is not white."""
    if restored.pixels.shape != photo.pixels.shape:
        return restored
    known = _known(lost, photo)[0, 0, :, :, None].bool().numpy()
    return restored.replaced(cast(Pixels, np.where(known, photo.pixels, restored.pixels)), restored.alpha)


def _floats(photo: Photo) -> Tensor:
    """(1,C,H,W) in [0,1], as the network gets it."""
    visible = _with_colours_spread(photo)
    return torch.from_numpy(visible.astype(np.float32)).div_(photo.white).permute(2, 0, 1)[None]


def _finished(y: Tensor, photo: Photo, scale: int) -> Photo:
    """(C',H*s,W*s) as a photo with the bit depth, alpha and metadata of the original."""
    pixels = _quantised(y.permute(1, 2, 0), photo)
    alpha = photo.alpha
    if alpha is not None and pixels.shape[:2] == alpha.shape:  # invisible pixels keep their colours
        np.copyto(pixels, photo.pixels, where=(alpha == 0)[..., None])
    if alpha is not None and scale > 1:
        plane = torch.from_numpy(alpha.astype(np.float32)).div_(photo.white)[None, None]
        larger = F.interpolate(plane, scale_factor=scale, mode="bicubic", align_corners=False)
        alpha = _quantised(larger[0, 0], photo)
    return photo.replaced(pixels, alpha)


def _with_colours_spread(photo: Photo) -> Pixels:
    """(H,W,C) with the nearest visible colour where alpha is 0.

    The receptive field of a network reaches beyond the edge of a cut-out, where hidden pixels, often black,
    would cause a dark rim.
    """
    if photo.alpha is None:
        return photo.pixels
    hidden = photo.alpha == 0
    if not hidden.any() or hidden.all():
        return photo.pixels
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return photo.pixels[rows, columns]


def _enlarged(x: Tensor, scale: int) -> Tensor:
    """(1,C,H,W) -> (1,C,H*s,W*s) in [0,1]."""
    if scale == 1:
        return x.clone()
    larger = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    return larger.clamp_(0, 1)


def over_all_turns(
    x: Tensor, known: Tensor | None, answer: Callable[..., Tensor], progress: Progress | None
) -> Tensor:
    """The mean of the results for the eight turns and mirrorings of (B,C,H,W), each turned back.

    `answer` is called as answer(x, known, progress=progress).
    """
    total: Tensor | None = None
    for number in range(8):
        turns, mirrored = number % 4, number >= 4

        def turned(planes: Tensor, turns: int = turns, mirrored: bool = mirrored) -> Tensor:
            planes = planes.flip(3) if mirrored else planes
            return planes.rot90(turns, (2, 3)).contiguous()

        def show(done: int, of: int, number: int = number) -> None:
            if progress is not None:
                progress(number * of + done, 8 * of)

        y = answer(turned(x), None if known is None else turned(known), progress=show)
        back = y.rot90(-turns, (2, 3))
        back = back.flip(3) if mirrored else back
        total = back if total is None else total.add_(back)
    assert total is not None
    return total.div_(8)


def _known(lost: Photo, photo: Photo) -> Tensor:
    """float32 (1,1,H,W): 1 where the mask is darker than middle grey or transparent, 0 elsewhere."""
    if lost.pixels.shape[:2] != photo.pixels.shape[:2]:
        sizes = [f"{p.pixels.shape[1]}x{p.pixels.shape[0]}" for p in (lost, photo)]
        raise ValueError(f"its mask is {sizes[0]} pixels, the photo {sizes[1]}: make them equal")
    if (fault := fault_of_mask(lost)) is not None:
        raise ValueError(f"its mask {fault}")
    return _dark(lost).float()[None, None]


def fault_of_mask(mask: Photo) -> str | None:
    """Why a mask is of no use, with the fix: nothing of it is white, or everything; None for any other."""
    known = _dark(mask)
    if known.all():
        return f"marks nothing: {NO_WHITE}"
    return None if known.any() else "is white everywhere: paint white only what is to be filled in"


def _dark(mask: Photo) -> Tensor:
    """bool (H,W): whether the mask, over black, is darker than middle grey."""
    light = torch.from_numpy(mask.pixels.astype(np.float32)).mean(dim=2)
    if mask.alpha is not None:
        light *= torch.from_numpy(mask.alpha.astype(np.float32)) / mask.white
    return light < mask.white / 2


def restore_planes(
    x: Tensor, known: Tensor | None, restorer: Restorer, progress: Progress | None = None
) -> Tensor:
    """(B,C,H,W), and for B = 1 also (1,1,H,W) -> (B,C',H*s,W*s) by the table above."""
    takes, gives = restorer.network.in_channels, restorer.network.out_channels
    colourises = restorer.description is not None and restorer.description.task == "colourise"
    channels, known = x.shape[1], restorer.network.taken(known)
    if restorer.network.frames > 1:
        raise ValueError(f"{for_videos(restorer.network.frames)}: choose another one for photos")
    if (takes, gives) not in ((1, 1), (3, 3), (1, 3)):
        raise ValueError(f"a model of {takes} to {gives} channels cannot be applied to grey or RGB photos")
    if colourises or gives > takes:
        luma = (
            x if channels == 1 else (x * x.new_tensor(FULL_RANGE_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        )
        return restorer(luma.expand(-1, takes, -1, -1), known, progress=progress)
    if takes == 1:
        planes = x.flatten(0, 1)[:, None]  # (B*C,1,H,W)
        repeated = None if known is None else known.expand(channels, -1, -1, -1)
        return restorer(planes, repeated, progress=progress)[:, 0].unflatten(0, (-1, channels))
    if channels == 1:
        return restorer(x.expand(-1, 3, -1, -1), known, progress=progress).mean(1, keepdim=True)
    return restorer(x, known, progress=progress)


def _quantised(values: Tensor, photo: Photo) -> Pixels:
    """[0,1] to the photo's own integers, to the nearest."""
    whole = levels(values, photo.white).numpy()
    return cast(Pixels, np.ascontiguousarray(whole.astype(photo.pixels.dtype)))
