"""Window self-attention of SwinIR, HAT and Uformer.

It has the partition, the shifted-window mask, the relative position bias and the attention itself.

Z. Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021, section
3.2 and equation 4. Masks and indices depend only on the photo's size; a network computes them once per
forward pass for all of its blocks, by comparisons that stay dynamic in a traced graph.

Legend: B samples, H height, W width, C channels, w window side, n windows in a photo, N = w*w positions in a
window, M key positions (N, or more for overlapping windows), h heads, d channels of a head.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from restora import processes
from restora.networks.layers.formulations import on_cpu
from restora.networks.meta import in_memory

MASKED = -1000.0
"""The value added to the logit of two positions that may not attend to each other. Swin's own -100 gives
exp(-100), a subnormal number, which is slow on CPUs: a training step of SwinIR took 1.3 times as long."""
PUBLISHED_MASKED = -100.0
"""The same value in published checkpoints."""


def to_windows(x_BHWC: Tensor, size: int) -> Tensor:
    """(B,H,W,C) with H and W multiples of `size` -> (B*n,N,C), windows in row-major order."""
    batch, height, width, channels = x_BHWC.shape
    x = x_BHWC.view(batch, height // size, size, width // size, size, channels)
    return x.transpose(2, 3).reshape(-1, size * size, channels)


def from_windows(windows: Tensor, size: int, height: int, width: int) -> Tensor:
    """(B*n,N,C) -> (B,H,W,C), the inverse of `to_windows`."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // size, width // size, size, size, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def overlapping_windows(x_BHWC: Tensor, size: int, side: int) -> Tensor:
    """(B,H,W,C) -> (B*n,M,C): the larger window of `side` around each window of `size`, zero-padded.

    One indexing: 8 times as fast as `F.unfold` and a rearrangement in the forward pass, 5 times backward.
    """
    height, width, channels = x_BHWC.shape[1:]
    margin = (side - size) // 2
    x = F.pad(x_BHWC, (0, 0, margin, margin, margin, margin))
    rows, columns = (
        torch.arange(0, length, size, device=x.device)[:, None] + torch.arange(side, device=x.device)
        for length in (height, width)
    )  # (H/w,o) and (W/w,o)
    windows = x[:, rows[:, None, :, None], columns[None, :, None, :]]  # (B,H/w,W/w,o,o,C)
    return windows.view(-1, side * side, channels)


def shift(x_BHWC: Tensor, by: int) -> Tensor:
    """Rolls the photo cyclically up and left by `by` pixels."""
    return torch.roll(x_BHWC, (-by, -by), (1, 2)) if by else x_BHWC


def shifted_window_mask(height: int, width: int, *, size: int, by: int, like: Tensor) -> Tensor:
    """(n,N,N): `MASKED` for two positions in a window of a rolled photo that were not adjacent, else 0.

    A rolled photo has three bands of rows, [0, H-w), [H-w, H-by) and [H-by, H), and three of columns; only
    positions in the same band of both attend to each other. dtype and device are those of `like`.
    """
    rows, columns = (torch.arange(side, device=like.device) for side in (height, width))
    row_band = (rows >= height - size).long() + (rows >= height - by).long()
    column_band = (columns >= width - size).long() + (columns >= width - by).long()
    bands = to_windows((3 * row_band[:, None] + column_band)[None, :, :, None], size).squeeze(-1)  # (n,N)
    same = bands[:, :, None] == bands[:, None, :]
    return torch.where(same, 0.0, MASKED).to(like.dtype)


@in_memory
def relative_position_index(size: int, *, looked_at: int | None = None) -> Tensor:
    """int64 (N,M): for each query and key position, the row in the table of relative position biases.

    Without `looked_at`, both are in the same window: the table has (2w-1)^2 displacements (Swin, section
    3.2). With it, keys are in a window of that larger side around the query's window: the table has
    (w+looked_at-1)^2 (HAT, section 3.3).
    """
    side = looked_at or size
    ours, theirs = torch.arange(size), torch.arange(side)
    if looked_at is None:
        step = ours[:, None] - theirs[None, :] + size - 1  # (w,w), 0 to 2w-2
    else:
        # HAT's authors use the opposite sign, starting at 1 - (side - size): negative rows wrap around
        step = theirs[None, :] - ours[:, None] + size - side + 1
    index = step[:, None, :, None] * (size + side - 1) + step[None, :, None, :]  # (w,w,side,side)
    return index.flatten(2, 3).flatten(0, 1)


def relative_position_bias(table: Tensor, index: Tensor) -> Tensor:
    """Table (rows,h) and index (N,M) -> (h,N,M)."""
    return table[index].permute(2, 0, 1)


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, heads: int, bias: Tensor, mask: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias + mask) v in every window and head.

    q (B*n,N,C), k and v (B*n,M,C), bias (h,N,M), mask (n,N,M) or None -> (B*n,N,C).
    """
    width = q.shape[-1] // heads
    q, k, v = (_split_heads(t, heads) for t in (q, k, v))  # (B*n,h,N or M,D), D = d zero-padded
    if on_cpu(q) and torch.is_grad_enabled():
        q, k, v, bias = q.contiguous(), k.contiguous(), v.contiguous(), bias.to(q.dtype)
        y: Tensor = _InPlaceAttention.apply(q, k, v, bias, mask, width**-0.5)  # type: ignore[no-untyped-call]
    else:
        bias = (bias[None] if mask is None else bias + mask[:, None]).to(q.dtype)  # (1 or n,h,N,M)
        if mask is not None:
            bias = bias.expand(q.shape[0] // bias.shape[0], -1, -1, -1, -1).flatten(0, 1)  # (B*n,h,N,M)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=width**-0.5)
    return y[..., :width].transpose(1, 2).flatten(2)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """(B*n,N,C) -> (B*n,h,N,D), the channels of a head zero-padded to a multiple of 8.

    Matrix products of 10 channels, SwinIR's lightweight width, run at half the speed of 16 on a CPU, and
    fused attention on a GPU needs a multiple of 8; zeros do not change the results. There is no padding on
    the meta device, where operations are counted.
    """
    x = x.view(*x.shape[:-1], heads, -1).transpose(1, 2)
    missing = 0 if x.is_meta else -x.shape[-1] % 8
    return F.pad(x, (0, missing)) if missing else x


class _InPlaceAttention(torch.autograd.Function):
    """Attention for training on a CPU, with one tensor of h*N*M numbers per window forward and one backward.

    On a CPU the fused kernel has no derivative with a bias. Plain autograd writes five such tensors, and the
    first access to new memory costs several times the arithmetic. The derivative of the softmax needs the sum
    over M of P dP, which equals the sum over d of y dy (Dao et al., FlashAttention, NeurIPS 2022, B.2).
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, scale: float
    ) -> Tensor:
        scores = torch.matmul(q, k.transpose(-2, -1)).mul_(scale).add_(bias)  # (B*n,h,N,M)
        if mask is not None:
            scores.view(-1, mask.shape[0], *scores.shape[1:]).add_(mask[:, None])
        attention = torch.softmax(scores, dim=-1, out=scores)
        y = attention @ v
        ctx.save_for_backward(q, k, v, attention, y)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        q, k, v, attention, y = ctx.saved_tensors
        grad_v = attention.transpose(-2, -1) @ grad
        slope = grad @ v.transpose(-2, -1)
        slope.sub_((grad * y).sum(-1, keepdim=True)).mul_(attention)  # gradient of the scores
        grad_bias = slope.sum(0)
        grad_q = (slope @ k).mul_(ctx.scale)
        grad_k = (slope.transpose(-2, -1) @ q).mul_(ctx.scale)
        return grad_q, grad_k, grad_v, grad_bias, None, None


def drop_path(x: Tensor, probability: float, training: bool) -> Tensor:
    """Stochastic depth: in training, a sample of a residual branch is 0 with this probability.

    Otherwise it is scaled up to keep the mean.

    G. Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016.
    """
    if not training or probability == 0.0:
        return x
    kept = processes.uniform(x.shape[0], *[1] * (x.ndim - 1), device=x.device) >= probability
    return x * (kept / (1 - probability)).to(x.dtype)


def growing_drops(last: float, depths: Sequence[int]) -> list[list[float]]:
    """The stochastic depth of each stage's blocks, growing linearly from 0 to `last`."""
    growing = [last * position / max(sum(depths) - 1, 1) for position in range(sum(depths))]
    ends = list(accumulate(depths))
    return [growing[end - depth : end] for depth, end in zip(depths, ends, strict=True)]
