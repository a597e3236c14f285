"""The batch that travels from the data module to a family.

Legend: B samples, C channels (of T frames folded into one axis: T·C), H height, W width, s the scale of a
super-resolution task (1 otherwise), K condition channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One batch on the device, degraded and ready for a network.

    `clean` is float32 (B,C,H,W) in [0,1], None if there is none. `degraded` is float32 (B,C,H/s,W/s) on
    the [0,1] scale; a degradation that the field does not clip (Gaussian noise) may leave the interval.
    `condition` is float32 (B,K,H/s,W/s): a noise-level map in the units of `degraded`, or a mask that is 1
    where the pixel is known. `target` is the training target if that is not `clean`. `keys` are the
    samples' random-number keys, int64 (B,), and `redegrade` draws another degraded version of the same
    photos, like `degraded`, from the keys that it gets; both are None if the data module has none.
    `unpaired`: `clean` are not the photos that were degraded. With `frames` T > 1, `degraded` is
    (B,T·C,H/s,W/s), a clip with its frames folded into channels; everything else is of its middle frame.
    """

    clean: Tensor | None
    degraded: Tensor
    condition: Tensor | None
    names: list[str]
    target: Tensor | None = None
    keys: Tensor | None = None
    redegrade: Callable[[Tensor], Tensor] | None = None
    unpaired: bool = False
    frames: int = 1

    @property
    def middle(self) -> Tensor:
        """The degraded photos (B,C,H/s,W/s): of clips the middle frames, which are to be restored."""
        return middle_frame(self.degraded, self.frames)

    def photos(self) -> Iterator["Batch"]:
        """The samples one by one."""

        def of(values: Tensor | None, index: int) -> Tensor | None:
            return None if values is None else values[index : index + 1]

        for index, name in enumerate(self.names or [""] * len(self.degraded)):
            yield Batch(
                of(self.clean, index),
                self.degraded[index : index + 1],
                of(self.condition, index),
                [name],
                target=of(self.target, index),
                keys=of(self.keys, index),
                unpaired=self.unpaired,
                frames=self.frames,
            )

    @property
    def supervision(self) -> Tensor:
        """The target of the restored photos in training: (B,C,H,W). Raises ValueError if there is none."""
        wanted = self.clean if self.target is None else self.target
        if wanted is None:
            raise ValueError(
                "these photos have neither a clean version nor a target: choose an objective that needs none"
            )
        return wanted


def middle_frame(clips: Tensor, frames: int) -> Tensor:
    """(B,T·C,H,W) -> (B,C,H,W), the middle one of T frames that are folded into channels."""
    channels = clips.shape[1] // frames
    start = frames // 2 * channels
    return clips[:, start : start + channels]
