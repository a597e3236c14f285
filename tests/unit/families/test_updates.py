"""One update of the weights: optimiser, clipping, average."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from restora.families.one_kernel import in_one_kernel
from restora.families.residual_cnn import ResidualCNN
from restora.networks.dncnn import DnCNN
from restora.training.muon import Muon
from restora.training.poison import SkipNonFinite
from restora.training.schedules import Constant


def family(optimizer: Callable, *, depth: int = 3, **changes: Any) -> ResidualCNN:
    torch.manual_seed(0)
    network = DnCNN(in_channels=3, depth=depth, channels=4, batch_norm=True, bias=False)
    return ResidualCNN(
        network=network, loss=nn.MSELoss(), optimizer=optimizer, schedule=Constant(), **changes
    )


@pytest.mark.parametrize("options", [{}, {"fused": False}, {"foreach": True}], ids=str)
def test_adam_is_fused_by_default_and_is_clipped_under_autocast(fit: Callable, options: dict) -> None:
    def adam(parameters):
        return torch.optim.AdamW(parameters, lr=1e-3, **options)

    trained = family(adam)
    trainer = fit(trained, steps=2, precision="bf16-mixed", gradient_clip_val=0.1)
    (group,) = trainer.optimizers[0].param_groups
    assert bool(group["fused"]) == (not options)
    norms = [p.grad.square().sum() for p in trained.network.parameters()]
    assert float(torch.stack(norms).sum().sqrt()) <= 0.1 * 1.001


@pytest.mark.parametrize(
    "optimizer", [torch.optim.Adam, partial(torch.optim.SGD, momentum=0.9), Muon], ids=str
)
def test_a_run_goes_on_alike_in_another_memory_order(optimizer: Any) -> None:
    def three_steps(state: tuple[Any, Any] | None, order: torch.memory_format) -> tuple[Any, Any]:
        trained = family(partial(optimizer, lr=0.1), channels_last=order is torch.channels_last)
        made = in_one_kernel(trained.make_optimizer(trained.network.parameters()))
        if state is not None:
            trained.network.load_state_dict(state[0])
            made.load_state_dict(deepcopy(state[1]))
        for number in range(3):
            photos = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(number))
            made.zero_grad()
            trained(photos).square().mean().backward()
            made.step()
        return trained.network.state_dict(), made.state_dict()

    first = three_steps(None, torch.channels_last)
    same, other = (three_steps(first, order)[0] for order in (torch.channels_last, torch.contiguous_format))
    for name, value in same.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)


class Calls(TorchDispatchMode):
    """Counts what reaches torch, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.made[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9)])
def test_an_update_makes_no_more_calls_for_more_weights(
    fit: Callable, optimizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look for a step that is not finite, optimiser and average, as on a GPU: each takes all weights, and
    all statistics of batch norms, at once."""
    monkeypatch.setattr(SkipNonFinite, "_reads_late", lambda *_: True)

    def calls(depth: int) -> Counter[str]:
        trained = family(partial(optimizer, lr=0.01), depth=depth, ema_decay=0.9)
        counted = Calls()

        class Update(Callback):
            def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
                if trainer.global_step == 2:
                    counted.__enter__()

        def update() -> None:
            ResidualCNN.update_ema(trained)
            if counted.made:
                counted.__exit__(None, None, None)

        trained.update_ema = update
        fit(trained, steps=3, callbacks=[Update(), SkipNonFinite(directory=tmp_path)])
        return counted.made

    few, many = calls(3), calls(8)
    assert few["_foreach_lerp_"] == 1
    assert sum(name.startswith("_fused_") for name in few) == 1
    assert sum(few.values()) < 30
    assert many == few
