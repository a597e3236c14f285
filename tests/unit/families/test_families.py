"""What each family does differently, seen from outside."""

import inspect
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from restora.families.base import Family
from restora.families.ema import Average, averaged_copy
from restora.families.gan import GanFamily
from restora.families.nafnet import NAFNetFamily
from restora.families.parameter_groups import check_same_parts
from restora.families.residual_cnn import ResidualCNN
from restora.families.transformer import TransformerFamily
from restora.families.unet import UNetFamily
from restora.losses.adversarial import VanillaLoss
from restora.losses.pixel import PSNRLoss
from restora.metrics.image import psnr
from restora.networks.discriminators import PatchDiscriminator
from restora.networks.dncnn import DnCNN
from restora.networks.nafnet import NAFNet
from restora.networks.unet import UNet
from restora.objectives.adversarial import Adversarial
from restora.objectives.base import Objective, Setting, Step, Terms, check_all
from restora.objectives.supervised import MultiScale, Supervised
from restora.training.schedules import Constant, Cosine
from restora.types import Batch


def recipe(**changes: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    options = {
        "network": DnCNN(in_channels=3, depth=3, channels=8, batch_norm=True, bias=False),
        "loss": nn.MSELoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "schedule": Constant(),
    }
    return options | changes


def opponent() -> Adversarial:
    discriminator = PatchDiscriminator(channels=4, levels=1)
    return Adversarial(
        discriminator=discriminator, loss=VanillaLoss(), optimizer=partial(torch.optim.SGD, lr=0.1)
    )


def nafnet() -> NAFNet:
    torch.manual_seed(0)
    network = NAFNet(width=8, encoder_blocks=[1], middle_blocks=1, decoder_blocks=[1])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


BLOCKS = NAFNet(width=8, encoder_blocks=[2], middle_blocks=2, decoder_blocks=[2])
for _parameter in BLOCKS.parameters():
    nn.init.normal_(_parameter, std=0.1, generator=torch.Generator().manual_seed(0))


def test_average_follows_the_written_rule() -> None:
    network = nn.Linear(3, 2)
    average = averaged_copy(network)
    before = average.weight.clone()
    with torch.no_grad():
        network.weight += 1.0
    Average(average, network).update(decay=0.9, updates=1)
    decay = min(0.9, 2 / 11)
    torch.testing.assert_close(average.weight, decay * before + (1 - decay) * network.weight)
    assert not average.weight.requires_grad


def test_the_average_is_evaluated_and_lags(fit: Callable) -> None:
    family = Family(**recipe(ema_decay=0.99))
    start = [p.clone() for p in family.network.parameters()]
    fit(family, steps=3)
    assert family.evaluation_network() is family.ema
    moved = [not torch.equal(a, b) for a, b in zip(start, family.network.parameters(), strict=True)]
    assert all(moved)
    for average, last in zip(family.ema.parameters(), family.network.parameters(), strict=True):
        assert not torch.equal(average, last)
    counts = [value for name, value in family.ema.named_buffers() if name.endswith("num_batches_tracked")]
    assert [int(count) for count in counts] == [3] * len(counts) != []


def test_learning_rate_is_a_function_of_progress(fit: Callable) -> None:
    family = Family(**recipe(schedule=Cosine(final=0.0)))
    seen: list[float] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, module, *_: Any) -> None:
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    fit(family, steps=4, callbacks=[Watch()])
    expected = [0.1 * 0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert seen == pytest.approx(expected)


def test_scores_are_per_photo_rounded_and_sorted(fit: Callable) -> None:
    family = Family(**recipe(ema_decay=None))
    trainer = fit(family, steps=2, val_check_interval=2, check_val_every_n_epoch=None)
    names = [row["name"] for row in family.scores]
    assert names == sorted(names)
    assert len(names) == 8
    batch = Batch(**trainer.datamodule.photos[1])
    with torch.no_grad():
        restored = family.network.eval()(batch.degraded).clamp(0, 1).mul(255).round().div(255)
    expected = psnr(restored, batch.clean)
    rows = {row["name"]: row for row in family.scores}
    # the last validation ran after the last step, on the same weights
    assert rows["1a.png"]["psnr"] == pytest.approx(float(expected[0]), abs=1e-3)
    mean = math.fsum(row["psnr"] for row in family.scores) / 8
    assert float(trainer.callback_metrics["val/psnr"]) == pytest.approx(mean, rel=1e-6)


def test_scores_do_not_depend_on_the_batch_a_photo_comes_in() -> None:
    family = NAFNetFamily(**recipe(network=nafnet(), loss=PSNRLoss()), local_converter=(16, 16))
    clean = torch.rand(3, 3, 40, 40)
    batch = Batch(clean, clean + 0.1 * torch.randn_like(clean), None, ["a", "b", "c"])
    alone = [
        Batch(batch.clean[i][None], batch.degraded[i][None], None, [name]) for i, name in enumerate("abc")
    ]
    rows = []
    for batches in ([batch], alone):
        family.on_validation_epoch_start()
        with torch.no_grad():
            for index, each in enumerate(batches):
                family.validation_step(each, index)
        rows.append(family.rows)
    assert [row["name"] for row in rows[0]] == [row["name"] for row in rows[1]] == list("abc")
    for together, single in zip(*rows, strict=True):
        for key in ("psnr", "ssim", "input_psnr", "input_ssim"):
            assert float(together[key]) == pytest.approx(float(single[key]), abs=1e-5)


def test_the_validation_loss_is_that_of_the_middle_of_a_training() -> None:
    """So that validations can be compared, also with terms that vary over a training or begin later."""

    class Varying(Objective):
        def terms(self, step: Step) -> dict[str, torch.Tensor]:
            return {"": step.restored.new_tensor(step.progress)}

    objective = {"varying": Varying(weight=2.0, start_step=1000)}
    family = NAFNetFamily(
        **recipe(network=nafnet(), loss=None, objective=objective, validation_loss=True),
        local_converter=(16, 16),
    )
    clean, made = torch.rand(2, 3, 16, 16), Mock(wraps=family.evaluation_network)
    family.evaluation_network = made
    family.on_validation_epoch_start()
    with torch.no_grad():
        family.validation_step(Batch(clean, clean, None, ["a", "b"]), 0)
    assert [row["loss"] for row in family.rows] == [2 * 0.5] * 2
    assert made.call_count == 1, "a converted network is a copy"


def test_held_out_photos_are_restored_in_float32_after_a_training_in_less() -> None:
    """As by the exported model, whose figures they are."""
    family, clean = Family(**recipe(network=nafnet(), ema_decay=None)).eval(), torch.rand(1, 3, 32, 32)
    made = []
    for mixed in (False, True):
        family.on_test_epoch_start()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            family.test_step(Batch(clean, clean / 2, None, ["a"]), 0)
        made.append([{k: v for k, v in row.items() if k != "seconds"} for row in family.rows])
    assert made[0] == made[1]


def test_batches_would_arrive_by_lightnings_public_hooks_too(
    fit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The family overrides two private methods, which save time: without them the same is learnt.

    So a Lightning that has them no more is none the worse; one that calls them in another way fails here.
    """
    names = ("_on_before_batch_transfer", "_apply_batch_transfer_handler")
    called: Counter[str] = Counter()
    for name in names:
        ours, theirs = Family.__dict__[name], getattr(LightningModule, name, None)
        assert theirs is not None, f"this Lightning does not call {name}: the override can go"
        assert [*inspect.signature(ours).parameters] == [*inspect.signature(theirs).parameters]

        def counted(*given: Any, ours: Any = ours, name: str = name, **options: Any) -> Any:
            called[name] += 1
            return ours(*given, **options)

        monkeypatch.setattr(Family, name, counted)
    by_ours = ResidualCNN(**recipe(), ema_decay=0.5)
    fit(by_ours, steps=3)
    assert called[names[0]] == called[names[1]] >= 3
    for name in names:
        monkeypatch.delattr(Family, name)
    by_theirs = ResidualCNN(**recipe(), ema_decay=0.5)
    fit(by_theirs, steps=3)
    for name, value in by_theirs.state_dict().items():
        assert torch.equal(value, by_ours.state_dict()[name]), name


def test_residual_cnn_starts_as_configured_and_clips_by_its_rate(fit: Callable) -> None:
    family = ResidualCNN(**recipe(initialisation="orthogonal", adjustable_clip=1e-4))
    weight = family.network.model[0].weight.flatten(1)  # (8, 27)
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), atol=1e-5, rtol=0)
    before = [p.clone() for p in family.network.parameters()]
    fit(family, steps=1)
    # |gradient| <= theta / rate, so one SGD step moves nothing by more than theta
    largest = max((a - b).abs().max() for a, b in zip(before, family.network.parameters(), strict=True))
    assert float(largest) == pytest.approx(1e-4, rel=1e-3), "and what is clipped moves by theta"


def test_a_frozen_batch_norm_keeps_its_statistics(fit: Callable) -> None:
    network = DnCNN(in_channels=3, depth=4, channels=8, batch_norm=True, bias=False)
    names = [name for name, part in network.named_modules() if isinstance(part, nn.BatchNorm2d)]
    family = Family(**recipe(network=network, freeze=[names[0]]))
    fit(family, steps=3, val_check_interval=1, check_val_every_n_epoch=None)
    frozen, free = (family.network.get_submodule(name) for name in names)
    assert not frozen.running_mean.any()
    assert free.running_mean.any()


def test_a_rate_of_what_is_frozen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate_factors\.model\.0=0\.1 has no effect, as family\.freeze"):
        Family(**recipe(freeze=["model.0"], rate_factors={"model.0": 0.1}))
    Family(**recipe(freeze=["model.0"], rate_factors={"model": 0.1}))  # the others are trained


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"objectives.a.head": torch.zeros(3)}, "objective.a"),
        ({"objectives.a.head": None}, "objective.a"),
        ({"objectives.a.more": torch.zeros(2)}, "objective.a"),
        ({"network.w": torch.zeros(1, 2)}, "network"),
        ({"ema.w": None}, "family.ema_decay"),
    ],
)
def test_a_checkpoint_of_other_weights_is_refused_with_the_key(changed: dict[str, Any], key: str) -> None:
    own = {f"{part}.w": torch.zeros(2) for part in ("network", "ema", "objectives.a")}
    own |= {"objectives.a.head": torch.zeros(2), "objectives.a._extra_state": torch.zeros(4)}
    loaded = own | {"objectives.a._extra_state": torch.zeros(1)} | changed
    loaded = {name: value for name, value in loaded.items() if value is not None}
    check_same_parts(own, own | {"objectives.a._extra_state": torch.zeros(1)})
    with pytest.raises(ValueError, match=f"leave {key} as it was"):
        check_same_parts(own, loaded)


def test_a_run_in_which_nothing_takes_part_at_first_is_refused() -> None:
    setting = Setting(network=DnCNN(in_channels=3, depth=4, channels=8, batch_norm=False), patch_size=32)
    late, off, now = (
        Supervised(loss=nn.L1Loss(), **options) for options in ({"start_step": 2}, {"weight": 0.0}, {})
    )
    check_all({"late": late, "off": off, "now": now}, setting)
    with pytest.raises(ValueError, match=r"objective\.late\.start_step=0 objective\.off\.weight=1"):
        check_all({"late": late, "off": off}, setting)


def test_all_batch_norms_beside_adapters_keep_their_statistics(fit: Callable) -> None:
    family = Family(**recipe(adapters={"rank": 2}))
    family.adapt()
    before = {name: value.clone() for name, value in family.network.named_buffers()}
    fit(family, steps=2)
    for name, value in family.network.named_buffers():
        assert torch.equal(value, before[name]), name


def test_the_terms_of_a_lone_objective_are_logged(fit: Callable) -> None:
    class Two(Objective):
        def terms(self, step: Step) -> Terms:
            return {"far": step.restored.square().mean(), "near": step.restored.mean()}

    seen = fit(Family(**recipe(objective={"two": Two(weight=0.5)})), steps=1).callback_metrics
    parts = float(seen["objective/two/far"]), float(seen["objective/two/near"])
    assert sum(parts) == pytest.approx(float(seen["train/loss"]))


def test_residual_cnn_logs_the_spread_of_the_residual(fit: Callable) -> None:
    family = ResidualCNN(**recipe(optimizer=partial(torch.optim.SGD, lr=0.0)))
    trainer = fit(family, steps=1)
    batch = Batch(**trainer.datamodule.photos[0])
    with torch.no_grad():
        residual = family.network.train()(batch.degraded) - batch.degraded
    assert float(trainer.callback_metrics["train/residual_std"]) == pytest.approx(float(residual.std()))


class Listening(nn.Module):
    """A loss that remembers the types it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: set[torch.dtype] = set()

    def forward(self, restored: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        loss = (restored - clean).abs().mean()
        self.heard |= {restored.dtype, clean.dtype, loss.dtype}
        return loss


@pytest.mark.parametrize(
    "kind", [Family, ResidualCNN, UNetFamily, NAFNetFamily, TransformerFamily, GanFamily]
)
def test_in_bfloat16_losses_and_weights_are_float32_and_nothing_is_scaled(
    kind: type[Family], fit: Callable
) -> None:
    loss = Listening()
    options = recipe(loss=loss)
    if kind is GanFamily:
        discriminator = PatchDiscriminator(in_channels=3, channels=8, levels=1, norm="none")
        adam = partial(torch.optim.Adam, lr=1e-2)
        against = Adversarial(discriminator=discriminator, loss=VanillaLoss(), optimizer=adam, weight=0.1)
        terms = {"supervised": Supervised(loss=loss), "adversarial": against}
        options = recipe(loss=None, optimizer=adam, objective=terms)
    family = kind(**options)
    seen: set[torch.dtype] = set()
    last = [module for module in family.network.modules() if isinstance(module, nn.Conv2d)][-1]
    last.register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    trainer = fit(family, steps=2, precision="bf16-mixed")
    assert seen == {torch.bfloat16}
    assert loss.heard == {torch.float32}
    assert trainer.precision_plugin.scaler is None
    assert {p.dtype for p in family.parameters()} == {torch.float32}
    assert all(math.isfinite(float(p.sum())) for p in family.parameters())


def test_deterministic_training_asks_torch_for_it(fit: Callable) -> None:
    asked = []

    class Watch(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            asked.append(torch.are_deterministic_algorithms_enabled())

    try:
        fit(Family(**recipe()), steps=1, deterministic=True, callbacks=[Watch()])
    finally:
        torch.use_deterministic_algorithms(False)
    assert asked == [True]


def test_nafnet_trains_on_psnr_and_is_evaluated_locally(fit: Callable) -> None:
    family = NAFNetFamily(**recipe(network=nafnet(), loss=PSNRLoss()), local_converter=(16, 16))
    x = torch.rand(1, 3, 40, 40)
    restored, clean = family.network(x), torch.rand(1, 3, 40, 40)
    loss = family.objectives["supervised"].loss(restored, clean)
    assert float(loss) == pytest.approx(-float(psnr(restored, clean)[0]), abs=1e-3)
    local = family.evaluation_network()
    with torch.no_grad():
        assert (local(x) - family.ema(x)).abs().max() > 1e-4  # other statistics than the whole photo's
    fit(family, steps=1)


def test_transformer_refuses_patches_that_its_stages_do_not_name(fit: Callable) -> None:
    stages = [
        {"start_step": 0, "patch_size": 24, "batch_size": 2},
        {"start_step": 2, "patch_size": 32, "batch_size": 2},
    ]
    fit(TransformerFamily(**recipe(stages=stages)), steps=2)
    with pytest.raises(ValueError, match="step 2 should train on patches of 32, got 24"):
        fit(TransformerFamily(**recipe(stages=stages)), steps=3)
    fit(TransformerFamily(**recipe(stages=stages)), steps=2, accumulate_grad_batches=2)  # of 4 batches


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Family(**recipe(ema_decay=1.5)), "family.ema_decay"),
        (lambda: ResidualCNN(**recipe(initialisation="xavier")), "family.initialisation"),
        (lambda: ResidualCNN(**recipe(adjustable_clip=0)), "family.adjustable_clip must be above 0"),
        (lambda: ResidualCNN(**recipe(adjustable_clip=-0.1)), "family.adjustable_clip must be above 0"),
        (
            lambda: ResidualCNN(**recipe(adjustable_clip=0.1, objective={"adversarial": opponent()})),
            "adversarial brings another: set family.adjustable_clip=null and family.gradient_clip",
        ),
        (lambda: GanFamily(**recipe()), "needs an adversarial objective"),
        (lambda: Family(**recipe(gradient_clip=1.0)), "trainer.gradient_clip_val=1.0"),
        (lambda: Family(**recipe(loss=None)), "nothing to learn from"),
        (lambda: Family(**recipe(compile_network="fastest")), "compile must be true, false, auto or a mode"),
        (lambda: Family(**recipe(activation_checkpointing=True)), "DnCNN has no repeated blocks"),
    ],
)
def test_bad_values_are_named(make: Callable[[], Family], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make()


def test_recomputed_blocks_train_the_same_network_in_less_memory(fit: Callable) -> None:
    kept: list[int] = []
    ends = []
    for recompute in (False, True):
        network = NAFNet(width=8, encoder_blocks=[2], middle_blocks=2, decoder_blocks=[2])
        network.load_state_dict(BLOCKS.state_dict())
        family = NAFNetFamily(**recipe(network=network, loss=PSNRLoss(), activation_checkpointing=recompute))
        saved = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            family.network(torch.rand(1, 3, 32, 32))
        kept.append(saved)
        fit(family, steps=2)
        assert (
            family.state_dict().keys()
            == NAFNetFamily(**recipe(network=network, loss=PSNRLoss())).state_dict().keys()
        )
        ends.append(family.network.state_dict())
    assert kept[1] < kept[0] / 3
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value)


def test_heads_that_no_objective_asks_for_are_unused() -> None:
    network = UNet(channels=[4, 8], side_outputs=1)
    assert Family(**recipe(network=network)).leaves_parameters_unused
    both = MultiScale(loss=nn.L1Loss(), scale_weights=[1.0, 0.5])
    assert not Family(**recipe(network=network, objective={"multi_scale": both})).leaves_parameters_unused
    assert not Family(**recipe()).leaves_parameters_unused
