"""Camera shake: blur along the path of a hand-held camera."""

import torch
from torch import Tensor

from restora.degradations.base import Params, Shape
from restora.degradations.blur.filtering import KernelBlur, normalised, pixel_grid
from restora.degradations.parameters import Range, as_number, as_range
from restora.keyed import KeyedGenerator
from restora.registry import register

_STEPS = 96


@register("degradation", "camera_shake")
class CameraShake(KernelBlur):
    """A random trajectory within `extent` pixels, each point spread over the four nearest pixels.

    The path is that of a particle with inertia: at each of 96 steps its velocity gets a Gaussian jerk and a
    pull back to the centre, and now and then (`impulse` per exposure, on average) a strong kick that nearly
    reverses it (Boracchi and Foi, "Modeling the performance of image restoration from motion blur", TIP
    2012, sec. II-B; used by DeblurGAN). `extent` (the longer side of the path) is a number or a range drawn
    uniformly per sample.
    """

    def __init__(self, *, extent: Range, jerk: Range = (0.1, 0.4), impulse: float = 1.0) -> None:
        self.extent = as_range("extent", extent, least=0)
        self.jerk = as_range("jerk", jerk, least=0)
        self.impulse = as_number("impulse (the mean number of kicks)", impulse, least=0)
        self.radius = int(self.extent[1] / 2) + 1

    def sample(self, shape: Shape, generator: KeyedGenerator) -> Params:
        return {
            "extent": generator.uniform((), *self.extent),
            "jerk": generator.uniform((), *self.jerk),
            "key": generator.next_keys(),
        }

    def kernels(self, params: Params) -> Tensor:
        path = self._path(params)  # (B,steps,2) as (y, x)
        low, high = path.amin(1, keepdim=True), path.amax(1, keepdim=True)
        extent = params["extent"].view(-1, 1, 1)
        longer = (high - low).amax(2, keepdim=True).clamp(min=1e-6)
        path = (path - (low + high) / 2) * (extent / longer)
        rows, columns = pixel_grid(self.radius, path.device)
        # a tent per point and axis; their outer products summed over the points are one matrix product
        in_rows = (1 - (rows.view(1, 1, -1) - path[..., :1]).abs()).clamp_(min=0)  # (B,steps,k)
        in_columns = (1 - (columns - path[..., 1:]).abs()).clamp_(min=0)
        return normalised(in_rows.mT @ in_columns)

    def _path(self, params: Params) -> Tensor:
        generator = KeyedGenerator(params["key"])
        batch = generator.batch
        jerks = generator.normal((_STEPS, 2)) * params["jerk"].view(-1, 1, 1)
        kicked = generator.uniform((_STEPS, 1)) < self.impulse / _STEPS
        kicks = generator.normal((_STEPS, 2)) * 0.5
        velocity = generator.normal((2,))
        position = torch.zeros_like(velocity)
        path = torch.empty(batch, _STEPS, 2, device=velocity.device)
        for step in range(_STEPS):
            pull = position * (-0.7 / _STEPS)
            moved = velocity + jerks[:, step] + pull
            velocity = torch.where(kicked[:, step], kicks[:, step] - 2 * velocity, moved)
            # the speed is limited: otherwise kicks would add up
            velocity = velocity / velocity.norm(dim=1, keepdim=True).clamp(min=1)
            position = position + velocity
            path[:, step] = position
        return path
