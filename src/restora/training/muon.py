"""Muon: updates of equal size in all directions of a weight matrix, for recipes of a few minutes.

K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse, J. Bernstein, "Muon: An optimizer for hidden
layers in neural networks", 2024 (kellerjordan.github.io/posts/muon): the momentum of a matrix is replaced by
its nearest semi-orthogonal matrix, found by five Newton-Schulz iterations. A convolution kernel is flattened
to a matrix of its first axis (output channels, of a transposed convolution input channels) by the others. All
other parameters (biases, norms, depthwise kernels) are updated by Adam (Kingma and Ba, ICLR 2015).

torch.optim.Muon takes 2-D matrices only. Here, matrices of one shape are iterated together in one batched
product. Note: a step with a non-zero `found_inf` tensor changes nothing, as in torch's fused optimisers and
without host synchronisation (training/poison.py).
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from restora.registry import register

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan's: singular values come near 1 quickly and stay between 0.7 and 1.2."""
_ITERATIONS = 5
_REST = 0.4
"""Adam's rate beside Muon's: 2e-3 beside 5e-3."""


@register("optimizer", "muon")
class Muon(Optimizer):
    """Muon on matrices, Adam on the rest.

    `lr` is the size of a matrix's update: the update's singular values are about `lr`, times the square root
    of rows/columns if there are more rows. `rest_lr` (by default 0.4 `lr`) and `betas` are those of Adam for
    the rest. Both rates follow the same schedule. Adam also updates the parameters of objectives (CycleGAN's
    second network), as steps of constant size do not converge against an opponent. `weight_decay` is
    decoupled, as in AdamW, and applies to all weights. A matrix has at least `smallest` rows and columns.
    Raises ValueError for negative rates and a momentum outside [0, 1).
    """

    partners_apart: ClassVar[bool] = True
    """Parameters of objectives are passed as a group of the kind "rest"."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 0.005,
        momentum: float = 0.95,
        rest_lr: float | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        smallest: int = 4,
    ) -> None:
        rest_lr = _REST * lr if rest_lr is None else rest_lr
        for name, value in (("lr", lr), ("rest_lr", rest_lr)):
            if value < 0:
                raise ValueError(f"family.optimizer.{name} must be a number of 0 or more, got {value}")
        if not 0 <= momentum < 1:
            raise ValueError(f"family.optimizer.momentum must be in [0, 1), got {momentum}")
        given: list[Any] = list(params)
        groups: list[dict[str, Any]] = []
        for part in given if given and isinstance(given[0], dict) else [{"params": given}]:
            own = list(part["params"])
            by_adam = part.get("kind") == "rest"
            matrices = [p for p in own if not by_adam and _is_matrix(p, smallest)]
            rest = [p for p in own if by_adam or not _is_matrix(p, smallest)]
            if matrices:
                groups.append({**part, "params": matrices, "lr": lr, "kind": "matrix"})
            if rest:
                groups.append({**part, "params": rest, "lr": rest_lr, "kind": "rest"})
        defaults = {"momentum": momentum, "betas": tuple(betas), "weight_decay": weight_decay, "eps": eps}
        defaults["fused"] = True  # torch's marker of optimisers that respect `found_inf`
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._step_matrices if group["kind"] == "matrix" else self._step_rest)(params, group)
        return loss

    @property
    def _lost(self) -> Tensor | None:
        """(), 1 if the step is to be skipped (perhaps still being computed); None if no flag was set."""
        lost: Tensor | None = getattr(self, "found_inf", None)
        return lost

    def _step_matrices(self, params: list[Tensor], group: dict[str, Any]) -> None:
        lost = self._lost
        if group["weight_decay"]:
            taken = group["lr"] * group["weight_decay"]
            torch._foreach_mul_(params, 1 - taken if lost is None else 1 - taken * (1 - lost))
        gradients = [_grad(p) for p in params]
        averages = [self._zeros(p, "momentum") for p in params]
        _approach(averages, gradients, 1 - group["momentum"], lost)
        directions = torch._foreach_lerp(gradients, averages, group["momentum"])  # Nesterov's
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, p in enumerate(params):
            by_shape.setdefault((*_matrix_shape(p), p.device.index or 0), []).append(index)
        for (rows, columns, _), members in by_shape.items():
            stack = torch.stack([directions[i].reshape(rows, columns) for i in members])  # (n,rows,columns)
            steps = orthogonalise(stack)
            if lost is not None:
                steps = torch.where(lost > 0, 0.0, steps)
            size = -group["lr"] * max(1.0, rows / columns) ** 0.5
            for step, index in zip(steps.unbind(), members, strict=True):
                params[index].add_(step.view(params[index].shape), alpha=size)

    def _step_rest(self, params: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [_grad(p) for p in params]
        first = [self._zeros(p, "exp_avg") for p in params]
        second = [self._zeros(p, "exp_avg_sq") for p in params]
        counts = [self._steps(p) for p in params]
        beta1, beta2 = group["betas"]
        torch._foreach_add_(counts, 1)
        torch._fused_adamw_(
            params, gradients, first, second, [], counts,
            lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False, found_inf=self._lost,
        )  # fmt: skip
        if self._lost is not None:
            torch._foreach_sub_(counts, [self._lost] * len(counts))

    def _zeros(self, p: Tensor, name: str) -> Tensor:
        state = self.state[p]
        if name not in state:
            state[name] = torch.zeros_like(p)
        value: Tensor = state[name]
        return value

    def _steps(self, p: Tensor) -> Tensor:
        """(), float32 on the device: the number of updates of the parameter."""
        made = self.state[p].get("steps", 0)
        if not isinstance(made, Tensor):  # none yet, or from an old checkpoint
            made = torch.full((), float(made), dtype=torch.float32, device=p.device)
        elif made.device != p.device or made.dtype != torch.float32:
            made = made.to(p.device, torch.float32)
        self.state[p]["steps"] = made
        return made


def _approach(values: list[Tensor], others: list[Tensor], weight: float, lost: Tensor | None) -> None:
    """Lerps values towards others in place, unless the step is skipped, in one fused kernel."""
    torch._fused_sgd_(
        values, torch._foreach_sub(values, others), [],
        lr=weight, weight_decay=0.0, momentum=0.0, dampening=0.0, nesterov=False, maximize=False,
        is_first_step=False, found_inf=lost,
    )  # fmt: skip


def orthogonalise(matrices: Tensor) -> Tensor:
    """(n,rows,columns) -> same: approximately U V' of each U S V'; in float32, or bfloat16 on a GPU."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    wide = x.dtype == torch.float32 and x.shape[2] >= 2 * x.shape[1]
    x = _iterated_small(x) if wide else _iterated(x)
    return (x.mT if tall else x).to(matrices.dtype)


def _iterated(x: Tensor) -> Tensor:
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _iterated_small(x: Tensor) -> Tensor:
    """As `_iterated`, but with rows x rows matrices: (n,rows,columns) -> same.

    An iteration multiplies x from the left by a polynomial of its Gram matrix. These commute, so the product
    of all is computed without x: 3x3 kernels take 0.4 of the time. The results agree to 1e-5 for similar
    singular values, and to 1e-3 where these span five decades.
    """
    a, b, c = _COEFFICIENTS
    gram, product = x @ x.mT, None
    for left in reversed(range(_ITERATIONS)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # (n,rows,rows)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x


def _matrix_shape(p: Tensor) -> tuple[int, int]:
    return p.shape[0], p.numel() // p.shape[0]


def _is_matrix(p: Tensor, smallest: int) -> bool:
    """Whether Muon updates the parameter; depthwise kernels (one input channel) are no matrices."""
    return p.ndim >= 2 and p.shape[1] > 1 and min(_matrix_shape(p)) >= smallest


def _grad(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad
