"""Trained denoisers as functions of (photo, noise level), as plug-and-play methods need them.

A model conditioned on the noise level is such a function. So is a list of models of one level each: the model
of the next level at or above the requested one is used, as intended for IRCNN's 25.

Legend: B photos, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from restora.artifact.restorer import Restorer
from restora.artifact.sources import Loaded, open_source
from restora.networks.base import Network
from restora.networks.ircnn import IRCNN, LEVELS
from restora.networks.weights import load_state, read_tensors, under


class Denoiser(Protocol):
    """(B,C,H,W) near [0,1] and the standard deviation of its noise -> the photo, on the same device.

    The deviation is on the 8-bit scale.
    """

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...


class ConditionedDenoiser:
    """A network that is conditioned on a map of the noise level."""

    def __init__(
        self, network: Network, *, device: torch.device, converter: tuple[int, int] | None = None
    ) -> None:
        if network.condition_channels != 1 or network.scale != 1:
            raise ValueError(
                f"{type(network).__name__} is not conditioned on the noise level: take a model that is "
                "(ffdnet, drunet, fdncnn), or several of one level each"
            )
        self.restorer = Restorer(network=network, device=str(device), local_converter=converter)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        level = x.new_full((1, 1, 1, 1), sigma / 255)
        return by_channels(self.restorer, x, level)


class LevelledDenoiser:
    """Networks by the noise level (8-bit scale) that each was trained at."""

    def __init__(self, networks: Mapping[float, Network], *, device: torch.device) -> None:
        if not networks:
            raise ValueError("a list of denoisers must not be empty")
        self.networks = dict(sorted(networks.items()))
        self.device = device
        self._ready: dict[float, Restorer] = {}

    def level(self, sigma: float) -> float:
        """The next level at or above sigma, the highest where there is none."""
        return next((level for level in self.networks if level >= sigma - 1e-6), max(self.networks))

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        level = self.level(sigma)
        if level not in self._ready:
            self._ready[level] = Restorer(network=self.networks[level], device=str(self.device))
        return by_channels(self._ready[level], x, None)


def by_channels(restorer: Restorer, x: Tensor, level: Tensor | None) -> Tensor:
    """A grey network restores each channel by itself; a colour one gets a grey photo as three channels."""
    takes, channels = restorer.network.in_channels, x.shape[1]
    if takes not in (channels, 1) and not (takes == 3 and channels == 1):
        raise ValueError(f"the denoiser takes {takes} channels, the photo has {channels}")
    photos = x if takes == channels else x.flatten(0, 1)[:, None] if takes == 1 else x.expand(-1, 3, -1, -1)
    condition = None if level is None else level.expand(len(photos), 1, *x.shape[-2:]).contiguous()
    y = restorer(photos.contiguous(), condition)
    if takes == channels:
        return y
    return y.view_as(x) if takes == 1 else y.mean(1, keepdim=True)


class OpenedOnce:
    """The denoiser given to a method, opened when it is first needed; pickled unopened."""

    def __init__(self, given: Any, method: str) -> None:
        if given is None:
            raise ValueError(
                f"{method} needs a denoiser: set denoiser=SOURCE, any source of a model (in a command "
                "--denoiser SOURCE, in a configuration method.denoiser=SOURCE)"
            )
        self.given = given
        self._opened: dict[torch.device, Denoiser] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": {}}

    def on(self, device: torch.device) -> Denoiser:
        if device not in self._opened:
            self._opened[device] = denoiser_of(self.given, device)
        return self._opened[device]


def denoiser_of(given: Any, device: torch.device) -> Denoiser:
    """A denoiser from any source of a model, or a list of sources; a denoiser is returned as it is.

    A word is a source; `LEVEL:SOURCE` adds the noise level that it was trained at (model folders and runs
    record it themselves); a file with IRCNN's 25 sets of weights gives all of them. Raises ValueError.
    """
    if isinstance(given, Network):
        return ConditionedDenoiser(given, device=device)
    if isinstance(given, Mapping):
        return LevelledDenoiser({float(level): network for level, network in given.items()}, device=device)
    if callable(given):
        return given
    words = [given] if isinstance(given, str | Path) else list(given)
    if len(words) == 1:
        path = Path(words[0])
        sets = _ircnn_sets(path) if path.is_file() else None
        if sets is not None:
            return LevelledDenoiser(sets, device=device)
    opened = [_opened(str(word)) for word in words]
    if len(opened) == 1 and opened[0][1].network.condition_channels == 1:
        loaded = opened[0][1]
        return ConditionedDenoiser(
            loaded.network, device=device, converter=loaded.description.local_converter
        )
    return LevelledDenoiser(_by_level(words, opened), device=device)


def _opened(word: str) -> tuple[float | None, Loaded]:
    level, colon, rest = word.partition(":")
    if colon and level.replace(".", "", 1).isdigit():
        return float(level), open_source(rest)
    return None, open_source(word)


def _by_level(words: Sequence[Any], opened: Sequence[tuple[float | None, Loaded]]) -> dict[float, Network]:
    found: dict[float, Network] = {}
    for word, (level, loaded) in zip(words, opened, strict=True):
        level = loaded.description.sigma if level is None else level
        if loaded.network.condition_channels or loaded.network.scale != 1:
            raise ValueError(f"denoiser {word}: every model of a list must be for a single noise level")
        if level is None:
            raise ValueError(
                f"denoiser {word} is not conditioned on the noise level and does not say which one it was "
                f"trained at: write it as LEVEL:{word}, such as 25:{word}"
            )
        found[level] = loaded.network
    return found


def _ircnn_sets(path: Path) -> dict[float, Network] | None:
    """The networks of a file with IRCNN's sets of weights under `0` to `24`; None for any other file."""
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        return None
    tensors = read_tensors(path)
    first = IRCNN.infer_arguments(under(tensors, "0"))
    if first is None:
        return None
    made: dict[float, Network] = {}
    for number, level in enumerate(LEVELS):
        state = under(tensors, str(number))
        if not state:
            raise ValueError(f"{path} has IRCNN's weights, but not set {number} (noise level {level})")
        network = IRCNN(**first)
        load_state(network, state, f"{path}, set {number}")
        made[float(level)] = network.eval()
    return made
