"""Blur by a known point-spread function, with or without subsampling.

A circular convolution is diagonal in Fourier space, so its prox is a division there. Photos do not wrap
around: `Blur` is the circular one, `MirroredBlur` that of a photo whose borders are mirrored.

Legend: B samples, C channels, H height, W width, k kernel side, s scale.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from restora.image import mirrored
from restora.operators.base import Operator, check_rho, check_scale

_ALWAYS = 64
"""A kernel of so many pixels a side may be larger than the photo."""


def transfer_function(kernel: Tensor, height: int, width: int) -> Tensor:
    """The spectrum (H,W/2+1) of the kernel (k,k) with its centre at the origin.

    It is wrapped where it is larger than the photo.
    """
    rows, columns = kernel.shape
    plane = kernel.new_zeros(height, width)
    at_row = (torch.arange(rows, device=kernel.device) - rows // 2).remainder(height)
    at_column = (torch.arange(columns, device=kernel.device) - columns // 2).remainder(width)
    plane.index_put_((at_row[:, None], at_column[None]), kernel, accumulate=True)
    return torch.fft.rfft2(plane)


def checked_kernel(kernel: Tensor) -> Tensor:
    """The kernel. Raises ValueError for anything but a finite float tensor (k,k) with the sum 1."""
    if not isinstance(kernel, Tensor) or kernel.ndim != 2 or not kernel.is_floating_point():
        what = (
            f"{kernel.dtype} {tuple(kernel.shape)}" if isinstance(kernel, Tensor) else type(kernel).__name__
        )
        raise ValueError(f"a kernel must be a float tensor (k,k), got {what}")
    total = float(kernel.sum(dtype=torch.float64))
    if not abs(total - 1) < 1e-2:
        raise ValueError(f"a kernel must have the sum 1, got {total:g}: divide it by its sum")
    return kernel


def check_extent(kernel: Tensor, y: Tensor, scale: int) -> None:
    """Raises ValueError for a kernel that is too much larger than the photo: its margins fill the memory."""
    most = max(_ALWAYS, *(side * scale for side in y.shape[-2:]))
    if max(kernel.shape) > most:
        raise ValueError(
            f"the kernel is {kernel.shape[1]}x{kernel.shape[0]} pixels, the photo "
            f"{y.shape[-1]}x{y.shape[-2]}: crop the kernel to {most} or less"
        )


class Blur(Operator):
    """y = k * x, circular; `kernel` (k,k), its centre at k // 2."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)

    def check(self, y: Tensor) -> None:
        check_extent(self.kernel, y, self.scale)

    def transfer(self, x: Tensor) -> Tensor:
        return transfer_function(self.kernel.to(x), *x.shape[-2:])

    def A(self, x: Tensor) -> Tensor:
        return _filtered(x, self.transfer(x))

    def At(self, y: Tensor) -> Tensor:
        return _filtered(y, self.transfer(y).conj())

    def prox(self, z: Tensor, y: Tensor, rho: float) -> Tensor:
        check_rho(rho)
        transfer = self.transfer(z)
        spectrum = transfer.conj() * torch.fft.rfft2(y) + rho * torch.fft.rfft2(z)
        return torch.fft.irfft2(spectrum / (transfer.abs().square() + rho), s=z.shape[-2:])

    def start(self, y: Tensor) -> Tensor:
        return y


class MirroredBlur(Operator):
    """y = k * x with borders mirrored about the edge pixels, as the blurs of the degradations do it."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = checked_kernel(kernel)
        if not kernel.shape[0] % 2 or not kernel.shape[1] % 2:
            raise ValueError(f"a kernel must have shape (k,k) with odd k, got {tuple(kernel.shape)}")

    def check(self, y: Tensor) -> None:
        check_extent(self.kernel, y, self.scale)

    def _indices(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """The source rows and columns of the padded photo; one too small to be mirrored repeats its edges."""
        sides, reaches = photo.shape[-2:], [side // 2 for side in self.kernel.shape]
        mirrored = all(reach < size for size, reach in zip(sides, reaches, strict=True))

        def along(size: int, reach: int) -> Tensor:
            index = torch.arange(-reach, size + reach, device=photo.device)
            return (size - 1) - (index.abs() - (size - 1)).abs() if mirrored else index.clamp(0, size - 1)

        return along(sides[0], reaches[0]), along(sides[1], reaches[1])

    def A(self, x: Tensor) -> Tensor:
        (height, width), (rows, columns) = x.shape[-2:], self.kernel.shape
        from_rows, from_columns = self._indices(x)
        padded = x.index_select(-2, from_rows).index_select(-1, from_columns)
        transfer = transfer_function(self.kernel.to(x), *padded.shape[-2:])
        blurred = _filtered(padded, transfer)
        return blurred[..., rows // 2 : rows // 2 + height, columns // 2 : columns // 2 + width]

    def At(self, y: Tensor) -> Tensor:
        (height, width), (rows, columns) = y.shape[-2:], self.kernel.shape
        padded = F.pad(y, (columns // 2, columns // 2, rows // 2, rows // 2))
        transfer = transfer_function(self.kernel.to(y), *padded.shape[-2:])
        spread = _filtered(padded, transfer.conj())
        from_rows, from_columns = self._indices(y)
        folded = spread.new_zeros(*spread.shape[:-1], width).index_add_(-1, from_columns, spread)
        return folded.new_zeros(*folded.shape[:-2], height, width).index_add_(-2, from_rows, folded)

    def start(self, y: Tensor) -> Tensor:
        return y


class BlurSubsample(Blur):
    """y = every s-th pixel, from the first, of k * x, circular.

    `prox` is the closed form of N. Zhao et al., "Fast Single Image Super-Resolution Using a New Analytical
    Solution for l2-l2 Problems", IEEE TIP 2016, eq. 24, which DPIR and USRNet use.
    """

    def __init__(self, kernel: Tensor, scale: int) -> None:
        super().__init__(kernel)
        check_scale(scale)
        self.scale = scale

    def A(self, x: Tensor) -> Tensor:
        return super().A(x)[..., :: self.scale, :: self.scale]

    def At(self, y: Tensor) -> Tensor:
        return super().At(self._spread(y))

    def _spread(self, y: Tensor) -> Tensor:
        """Zeros between the pixels, (B,C,h*s,w*s)."""
        spread = y.new_zeros(*y.shape[:-2], y.shape[-2] * self.scale, y.shape[-1] * self.scale)
        spread[..., :: self.scale, :: self.scale] = y
        return spread

    def prox(self, z: Tensor, y: Tensor, rho: float) -> Tensor:
        check_rho(rho)
        height, width = z.shape[-2:]
        if height % self.scale or width % self.scale:
            raise ValueError(f"{height}x{width} pixels are not a multiple of the scale {self.scale}")
        transfer = _both_halves(self.transfer(z), width)  # (H,W)
        right = transfer.conj() * torch.fft.fft2(self._spread(y)) + rho * torch.fft.fft2(z)
        # the s^2 frequencies that alias to one are a small system, of rank 1 plus rho
        aliased = _mean_of_aliases(transfer * right, self.scale)
        power = _mean_of_aliases(transfer.abs().square(), self.scale)
        shared = (aliased / (power + rho)).repeat(*[1] * (right.ndim - 2), self.scale, self.scale)
        return torch.fft.ifft2((right - transfer.conj() * shared) / rho).real

    def start(self, y: Tensor) -> Tensor:
        """Bicubic, with the pixels at their sampling positions, not at the centres of their squares."""
        small = y.float()
        size = (y.shape[-2] * self.scale, y.shape[-1] * self.scale)
        rows, columns = (torch.arange(side, device=y.device) for side in size)
        grid = torch.meshgrid(
            *(2 * at / self.scale / max(side - 1, 1) - 1
              for at, side in ((rows, y.shape[-2]), (columns, y.shape[-1]))), indexing="ij",
        )  # fmt: skip
        places = torch.stack((grid[1], grid[0]), dim=-1)[None].float().expand(len(y), -1, -1, -1)
        sampled = F.grid_sample(small, places, "bicubic", "border", align_corners=True)
        return sampled.clamp(0, 1).to(y.dtype)


def _filtered(x: Tensor, transfer: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=x.shape[-2:])


def _both_halves(half: Tensor, width: int) -> Tensor:
    """The whole spectrum (H,W) of a real plane from the half (H,W/2+1) that rfft2 gives."""
    return torch.fft.fft2(torch.fft.irfft2(half, s=(half.shape[-2], width)))


def _mean_of_aliases(spectrum: Tensor, scale: int) -> Tensor:
    """(...,H,W) -> (...,H/s,W/s): the mean of the s^2 frequencies that alias to one."""
    height, width = spectrum.shape[-2:]
    blocks = spectrum.unflatten(-1, (scale, width // scale)).unflatten(-3, (scale, height // scale))
    return blocks.mean((-4, -2))


def edge_margins(y: Tensor, kernel: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,C,H+2m,W+2m), m = 2k: mirrored margins that become their circular blur at the seam.

    A blurred photo does not wrap around; without the margins a seam would cause ringing in the restored one.
    """
    margin = 2 * max(kernel.shape)
    height, width = y.shape[-2:]
    rows, columns = (
        mirrored(torch.arange(-margin, side + margin, device=y.device), side) for side in (height, width)
    )
    padded = y.index_select(-2, rows).index_select(-1, columns)
    blurred = Blur(kernel).A(padded)
    along = torch.arange(margin, dtype=y.dtype, device=y.device) + 0.5
    rise = torch.sin(torch.pi / 2 * along / margin).square()
    by_row, by_column = (torch.cat((rise, y.new_ones(side), rise.flip(0))) for side in (height, width))
    weight = by_row[:, None] * by_column
    return weight * padded + (1 - weight) * blurred
