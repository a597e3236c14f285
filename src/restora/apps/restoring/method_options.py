"""`restora restore method:NAME`: builds methods that are fitted to each photo from the command's options."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restora import vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from restora.fitting.base import Fit
    from restora.fitting.photos import PhotoFit

OPTIONS = ("seed", "max_time", "scale", "denoiser", "kernel", "mosaic", "set")
"""Options of such methods only."""
_OF_MODELS: dict[str, tuple[Any, ...]] = {
    "self_ensemble": (False,),
    "tile": (None,),
    "overlap": (None,),
    "precision": ("float32", "fp32"),
    "engine": ("auto", "torch"),
    "global_statistics": (False,),
    "task": (None,),
    "network": (None,),
}
"""Options of models only, with the values that methods have anyway."""


def add_options(made: argparse.ArgumentParser) -> None:
    """The options of methods that need no model of their own."""
    group = made.add_argument_group(
        "methods (SOURCE is method:NAME)",
        "Fitted to each photo: zs_n2n, dip, zssr, double_dip (haze); around a denoiser: pnp_hqs, pnp_admm, "
        "red. They take seconds to hours a photo; the time left is shown. Ctrl-C after a minute "
        "or more writes the result so far, as NAME.so_far.png.",
    )
    group.add_argument(
        "--denoiser",
        metavar="SOURCE",
        help="denoiser of pnp_hqs, pnp_admm and red: a model conditioned on the noise level, or a "
        "classical filter "
        "such as bm3d",
    )
    group.add_argument("--scale", type=int, metavar="N", help="enlarge N times (zssr: 2, others: 1)")
    group.add_argument(
        "--kernel",
        metavar="FILE|gaussian:WIDTH",
        help="blur kernel to remove: a picture of it with odd sides, or a Gaussian's "
        "standard deviation in pixels",
    )
    group.add_argument(
        "--mosaic",
        metavar="RGGB",
        help="the photos are raw sensor mosaics, grey or with one colour in each pixel: the colours of its "
        "2x2 pixels by rows",
    )
    group.add_argument(
        "--max-time",
        metavar="TIME",
        help="time limit for a photo, such as 90s or 10min; the result so far is kept",
    )
    group.add_argument("--seed", type=int, metavar="N", help="seed of the random numbers (default: 0)")
    group.add_argument(
        "--set", action="append", metavar="KEY=VALUE", help="an argument of the method, such as steps=500"
    )


def refuse_options(options: argparse.Namespace) -> None:
    """Raises ValueError for an option of methods if the source is a model."""
    for name in OPTIONS:
        if getattr(options, name) is not None:
            raise ValueError(
                f"--{name.replace('_', '-')} works with methods (method:zs_n2n …) only: leave it out for "
                "a model"
            )


def load(options: argparse.Namespace) -> "PhotoFit":
    """The method that the command names. Raises ValueError for options that it does not use."""
    from restora.artifact.restorer import pick_device
    from restora.config import build, option
    from restora.evaluation.classical import DENOISERS
    from restora.evaluation.methods import with_classical
    from restora.fitting.photos import PREFIX, PhotoFit

    name = options.model.removeprefix(PREFIX)
    if name in DENOISERS:
        raise ValueError(
            f"{name} is a classical filter, which `restora evaluate classical={name}` measures; here it can "
            f"be a method's denoiser: method:pnp_hqs --denoiser {name}"
        )
    for unused, usual in _OF_MODELS.items():
        if getattr(options, unused) not in usual:
            raise ValueError(
                f"--{unused.replace('_', '-')} works with models only: leave it out for {options.model}"
            )
    vocabulary.use_threads(options.threads)
    node = option("method", name) | _set(options.set or [])
    if options.denoiser is not None:
        if "denoiser" not in node:
            raise ValueError(f"--denoiser: {name} uses no denoiser, leave it out")
        node["denoiser"] = options.denoiser
    fit = build(with_classical(node), "method", where="method")
    scale = options.scale if options.scale is not None else fit.usual_scale
    if scale < 1:
        raise ValueError(f"--scale {scale}: expected a whole number of 1 or more")
    if options.seed is not None and not -(2**63) <= options.seed < 2**63:
        raise ValueError(f"--seed {options.seed}: expected a number of at most 64 bits")
    wanted = {
        "inpaint": options.mask is not None,
        "super_resolution": scale > 1,
        "deblur": bool(options.kernel),
        "demosaic": options.mosaic is not None,
    }
    unsaid = "dehaze" if "dehaze" in fit.tasks else "denoise"  # the task if no option names one
    asked = [task for task, is_so in wanted.items() if is_so] or [unsaid]
    for task in asked:
        if task not in fit.tasks:
            how = {
                "inpaint": "--mask",
                "super_resolution": "--scale above 1",
                "deblur": "--kernel",
                "demosaic": "--mosaic",
            }.get(task)
            raise ValueError(
                f"{name} is for {', '.join(fit.tasks).replace('_', '-')}: "
                + (
                    f"leave {how} out"
                    if how
                    else "say what is wrong with the photo (--mask, --scale, --kernel)"
                )
            )
    if options.mosaic is not None:
        _check_mosaic(options.mosaic, asked)
    if options.sigma is not None:
        _check_level(options.sigma, fit, asked)
    device = pick_device(options.device)
    fit.prepare(device)
    return PhotoFit(
        fit=fit,
        seed=options.seed or 0,
        device=str(device),
        max_time=vocabulary.seconds(options.max_time, "--max-time"),
        sigma=None if options.sigma == "auto" else options.sigma,  # the method estimates it itself
        scale=scale,
        kernel=None if options.kernel is None else _kernel(options.kernel),
        mosaic=options.mosaic,
    )


def _check_level(sigma: float | str, fit: "Fit", asked: list[str]) -> None:
    """Raises ValueError for a noise level that the method does not use, or cannot estimate."""
    named = " and ".join(task.replace("_", "-") for task in asked)
    if not set(asked) & set(fit.level_tasks):
        raise ValueError(f"--sigma: {fit.name} does not use the noise level for {named}, leave it out")
    if sigma == "auto" and asked != ["denoise"]:
        raise ValueError(
            f"--sigma auto estimates the noise of whole photos, not for {named}: give --sigma LEVEL"
        )


def _check_mosaic(pattern: str, asked: list[str]) -> None:
    """Raises ValueError for an invalid pattern, and if another task is wanted too."""
    from restora.operators.pointwise import bayer

    try:
        bayer(2, 2, pattern)
    except ValueError as error:
        raise ValueError(f"--mosaic {pattern}: {error}") from error
    if len(asked) > 1:
        raise ValueError("no method combines --mosaic with --mask, --scale or --kernel")


def _set(words: list[str]) -> dict[str, Any]:
    """`steps=500` as a key and a value, typed as in a configuration."""
    import yaml  # type: ignore[import-untyped]
    from omegaconf import OmegaConf

    found: dict[str, Any] = {}
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {word}: write it as KEY=VALUE, such as steps=500")
        try:
            read: Any = OmegaConf.to_container(OmegaConf.from_dotlist([word]))
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"--set {word}: the value cannot be read: {reason}") from error
        found |= read
    return found


def _kernel(word: str) -> "Tensor":
    """(k,k) with sum 1. Raises ValueError if `word` is neither a picture nor a Gaussian."""
    import torch

    from restora.photos.reading import read_photo

    kind, colon, width = word.partition(":")
    if kind == "gaussian" and colon:
        try:
            sigma = float(width)
        except ValueError:
            sigma = 0.0
        if not 0 < sigma < 1000:
            raise ValueError(f"--kernel {word}: write it as gaussian:WIDTH, a number of pixels above 0")
        at = torch.arange(-int(4 * sigma + 1), int(4 * sigma + 1) + 1).square()
        plane = torch.exp(-(at[:, None] + at) / (2 * sigma**2))
    else:
        if not Path(word).is_file():
            raise ValueError(f"--kernel {word}: no such picture; name a file, or write gaussian:WIDTH")
        plane = torch.tensor(read_photo(Path(word), "gray"))[..., 0].float()
        if not plane.shape[0] % 2 or not plane.shape[1] % 2:
            raise ValueError(
                f"--kernel {word}: its sides must be odd numbers of pixels (its centre is the middle "
                "pixel), got "
                f"{plane.shape[1]}x{plane.shape[0]}"
            )
    if not plane.sum() > 0:
        raise ValueError(f"--kernel {word}: the picture is black")
    return plane / plane.sum()
