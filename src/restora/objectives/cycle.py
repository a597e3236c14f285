"""CycleGAN: unpaired degraded and clean photos, translated in both directions.

J.-Y. Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV
2017. The network restores, a second network (`backward`) degrades; each has a discriminator for its target
set. A photo that passes through both should be unchanged (cycle term), and so should a photo of the target
set that passes through one (identity term, section 5.2). The restoring network is the one that is exported.

One clean photo has many noisy versions, but a deterministic `backward` gives only one. A `backward` with
condition channels is stochastic: it gets normal noise there (A. Almahairi et al., "Augmented CycleGAN:
Learning Many-to-Many Mappings from Unpaired Data", ICML 2018, section 3.2). The network then learns from the
cycle of clean photos, restoring their noisy versions. `backward` learns from its discriminator but not from
this cycle, which would favour noise that is easy to restore. A degraded photo comes back with other noise, so
the cycle of degraded photos is left out; the identity term of `backward` asks that the mean of two outputs
with opposite noise is the clean photo.

Note: `backward` is trained in the network's half-step, by the same optimiser, as their losses share the
cycles. Discriminators also get earlier outputs, from a buffer of `history` samples (section 4), which is part
of a checkpoint. Every process keeps the same buffer, over the whole batch.

Legend: B samples, C channels, K channels of noise, H height, W width.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from restora import processes
from restora.keyed import KeyedGenerator
from restora.losses.adversarial import AdversarialLoss
from restora.networks.base import Network
from restora.networks.discriminators import Discriminator
from restora.objectives.adversarial import discriminator_loss
from restora.objectives.base import MakeOptimizer, Opponent, Setting, Step, Terms, check_weights
from restora.objectives.showing import check_discriminator
from restora.registry import register


class History:
    """A buffer of earlier outputs for the discriminator, in float16.

    Outputs that are not finite are shown, so that their step is skipped, and not kept for later steps.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.kept: Tensor | None = None
        """(n,C,H,W), n at most `length`."""

    def mix(self, fakes: Tensor, generator: KeyedGenerator) -> Tensor:
        """Once the buffer is full, swaps each photo with probability 0.5 for an earlier one."""
        if self.length == 0:
            return fakes
        if self.kept is not None and self.kept.shape[1:] != fakes.shape[1:]:  # patches have grown
            self.kept = None
        # `cat` refuses float16 under bfloat16 autocast, on CPU and GPU
        with torch.autocast(fakes.device.type, enabled=False):
            return self._mixed(fakes, generator)

    def _mixed(self, fakes: Tensor, generator: KeyedGenerator) -> Tensor:
        draws = processes.gathered(generator.uniform((2,))).double()
        shown = []
        for fake, (chance, place) in zip(processes.gathered(fakes), draws, strict=True):
            kept = fakes.new_empty((0, *fake.shape), dtype=torch.float16) if self.kept is None else self.kept
            finite = fake.isfinite().all()
            if len(kept) < self.length:
                self.kept = torch.cat((kept, torch.where(finite, fake, 0.5)[None].half()))
                shown.append(fake)
                continue
            old = (place * self.length).long()[None]  # (1,); neither is read on the host: no synchronisation
            before, swaps = kept.index_select(0, old), (chance >= 0.5) & finite
            kept.index_copy_(0, old, torch.where(swaps, fake[None].half(), before))
            shown.append(torch.where(swaps, before[0].to(fake.dtype), fake))
        return processes.own_part(torch.stack(shown))


@register("objective", "cycle")
class Cycle(Opponent):
    """Adversarial, cycle and identity terms of both directions.

    The weight of the cycle terms is `cycle_weight`, of the identity terms `identity_weight * cycle_weight`,
    of the adversarial terms `adversarial_weight`, for restored photos times `restored_weight`. With a
    `restored_weight` of 0 there is no discriminator of clean photos, which a stochastic `backward` allows. A
    `backward` with condition channels gets noise in them.
    """

    needs_clean = False
    takes_target = False

    def __init__(
        self,
        *,
        backward: Network,
        clean_discriminator: Discriminator,
        degraded_discriminator: Discriminator,
        loss: AdversarialLoss,
        optimizer: MakeOptimizer,
        cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        adversarial_weight: float = 1.0,
        restored_weight: float = 1.0,
        history: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        weights = {"cycle_weight": cycle_weight, "identity_weight": identity_weight}
        weights |= {"adversarial_weight": adversarial_weight, "restored_weight": restored_weight}
        check_weights("cycle", **weights)
        if history < 0:
            raise ValueError(f"objective.cycle.history must be 0 photos or more, got {history}")
        self.backward, self.gan_loss, self._make_optimizer = backward, loss, optimizer
        shown = {"clean": clean_discriminator, "degraded": degraded_discriminator}
        self.sides = {"clean": restored_weight, "degraded": 1.0}
        """The weight of the adversarial term of each kind of photos."""
        if restored_weight == 0:
            del shown["clean"], self.sides["clean"]
        self.discriminators = nn.ModuleDict(shown)
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.adversarial_weight = adversarial_weight
        self.histories = {name: History(history) for name in self.sides}

    def check(self, setting: Setting) -> None:
        super().check(setting)
        check_unpaired("Cycle", setting)
        there, back = setting.network, self.backward
        if there.scale != 1 or back.scale != 1 or there.condition_channels:
            raise ValueError(
                "objective Cycle takes networks of scale 1, and for the restoring one none with a condition: "
                "choose others"
            )
        if (there.in_channels, there.out_channels) != (back.out_channels, back.in_channels):
            raise ValueError(
                f"objective.cycle.backward makes {back.in_channels} channels into {back.out_channels}, the "
                f"network {there.in_channels} into {there.out_channels}: set objective.cycle.backward."
                f"in_channels={there.out_channels} and out_channels={there.in_channels}"
            )
        for name, channels in (("clean", there.out_channels), ("degraded", there.in_channels)):
            if name not in self.sides:
                continue
            key = f"objective.cycle.{name}_discriminator"
            check_discriminator(self._discriminator(name), channels, setting, key=key, who=name)

    def _discriminator(self, name: str) -> Discriminator:
        found = self.discriminators[name]
        assert isinstance(found, Discriminator)
        return found

    def partners(self) -> Iterable[nn.Parameter]:
        return self.backward.parameters()

    def make_optimizer(self) -> Optimizer:
        return self._make_optimizer(self.discriminators.parameters())

    def terms(self, step: Step) -> Terms:
        degraded, clean = step.degraded, unpaired_clean(step)
        made = step.shared["cycle"] = self._made(step)
        adversarial = degraded.new_zeros(())
        for name, weight in self.sides.items():
            fake = self._discriminator(name)(made[name]).float()
            with torch.no_grad():
                seen = self._discriminator(name)(clean if name == "clean" else degraded).float()
            adversarial = adversarial + weight * self.gan_loss.generator(seen, fake)
        drawn = made["degraded"].detach() if self.draws else made["degraded"]
        cycle = (step.restore(drawn, None) - clean).abs().mean()
        if not self.draws:
            cycle = cycle + (self._degrade(made["clean"], step) - degraded).abs().mean()
        terms = {"adversarial": self.adversarial_weight * adversarial, "cycle": self.cycle_weight * cycle}
        if self.identity_weight > 0:
            stays = (step.restore(clean, None) - clean).abs().mean()
            if self.draws:
                mean = (made["degraded"] + self._degrade(clean, step, noise=-1.0)) / 2
                stays = stays + (mean - clean).abs().mean()
            else:
                stays = stays + (self._degrade(degraded, step) - degraded).abs().mean()
            terms["identity"] = self.identity_weight * self.cycle_weight * stays
        return terms

    def _made(self, step: Step) -> dict[str, Tensor]:
        """What both networks make of the batch, by the kind of photos."""
        made = {"degraded": self._degrade(unpaired_clean(step), step)}
        if "clean" in self.sides or not self.draws:
            made["clean"] = step.restored
        return made

    def validation_terms(self, step: Step) -> Terms:
        """The mean absolute difference of a degraded photo and its cycle through both networks."""
        return {"cycle": (self._degrade(step.restored, step) - step.degraded).abs().mean()}

    @property
    def draws(self) -> bool:
        """Whether `backward` gets noise."""
        return self.backward.condition_channels > 0

    def _degrade(self, photos: Tensor, step: Step, *, noise: float = 1.0) -> Tensor:
        """Degrades photos by `backward`; its noise, if it takes any, is multiplied by `noise`."""
        drawn = None
        if self.draws:  # (B,K,H,W)
            size = (self.backward.condition_channels, *photos.shape[2:])
            drawn = noise * step.generator("noise of backward").normal(size)
        answer: Tensor = self.backward(photos.contiguous(memory_format=step.memory_format), drawn)
        return answer.float()

    def own_loss(self, step: Step) -> tuple[Tensor, Terms]:
        reals = {"clean": unpaired_clean(step), "degraded": step.degraded}
        fakes = step.shared.get("cycle") or self._made(step)  # before `start_step` there are no terms
        total = step.degraded.new_zeros(())
        diagnostics: Terms = {}
        for name in self.sides:
            fake = fakes[name].detach()
            fake = self.histories[name].mix(fake, step.generator(f"history of {name}"))
            loss, figures = discriminator_loss(self._discriminator(name), self.gan_loss, reals[name], fake)
            total = total + loss
            diagnostics |= {f"{name}_{figure}": figures[figure] for figure in ("loss", "accuracy")}
        return total, diagnostics

    def get_extra_state(self) -> Tensor:
        """The buffers of all sides, (sides,n,C,H,W) float16; empty before the first step."""
        kept = [history.kept for history in self.histories.values()]
        known = [one for one in kept if one is not None]
        if len(known) < len(kept):
            return torch.empty(len(kept), 0, dtype=torch.float16)
        return torch.stack(known).cpu()

    def set_extra_state(self, state: Any) -> None:
        device = next(self.parameters()).device
        for history, kept in zip(self.histories.values(), state, strict=True):
            history.kept = kept.to(device).clone() if len(kept) else None


def check_unpaired(objective: str, setting: Setting) -> None:
    """Raises ValueError for data without clean photos."""
    if not (setting.has_clean or setting.unpaired):
        raise ValueError(
            f"objective {objective} learns what clean photos look like, and these data have none: set "
            "data=unpaired_folder, with other clean photos in clean/"
        )


def unpaired_clean(step: Step) -> Tensor:
    """Clean photos unpaired with the degraded ones: (B,C,H,W).

    For a batch of pairs, each sample gets the clean photo of another one, so that the pairing is not used; a
    batch of one gets its own, mirrored.
    """
    clean = step.batch.clean
    assert clean is not None  # ensured by `check`
    if step.batch.unpaired:
        return clean
    whole = processes.gathered(clean)
    return processes.own_part(whole.roll(1, 0) if len(whole) > 1 else whole.flip(-1))
