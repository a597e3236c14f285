"""CycleGAN: unpaired degraded and clean photos, translated there and back.

J.-Y. Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV
2017. The network restores, a second one (`backward`) degrades; each has a discriminator that knows its target
set. A photo that went through both has to come back (cycle), and one that is of the target set already has to
stay (identity, section 5.2). What is exported is the restoring network.

One clean photo has many noisy versions, and a function of the photo alone gives one of them. A `backward`
with a condition draws: it is given normal noise there (A. Almahairi et al., "Augmented CycleGAN: Learning
Many-to-Many Mappings from Unpaired Data", ICML 2018, section 3.2). Then the cycle of clean photos is what
teaches: the network restores what was drawn. `backward` learns from its discriminator alone, as the cycle
would teach it to draw what is easy to restore. Degraded photos come back otherwise than they were, so their
cycle is left out, and the identity of `backward` is that opposite draws have the clean photo as their mean.

Note: `backward` learns in the network's half-step, by the same optimiser, as their losses share the cycles.
Discriminators are shown translations of the last `history` samples too (section 4); those are part of a
checkpoint. Every process keeps the same history, that of the whole batch.

Legend: B samples, C channels, K channels of noise, H height, W width.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from restora import processes
from restora.keyed import KeyedGenerator
from restora.losses.adversarial import AdversarialLoss
from restora.networks.base import Network
from restora.networks.discriminators import Discriminator
from restora.objectives.base import Opponent, Setting, Step, Terms, check_weights
from restora.registry import register

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class History:
    """Translations of the last samples, kept in float16."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.kept: Tensor | None = None
        """(n,C,H,W), n up to `length`."""

    def mix(self, fakes: Tensor, generator: KeyedGenerator) -> Tensor:
        """Each photo or, half of the time once the history is full, an earlier one, replacing it there."""
        if self.length == 0:
            return fakes
        if self.kept is not None and self.kept.shape[1:] != fakes.shape[1:]:  # patches have grown
            self.kept = None
        with torch.autocast(
            fakes.device.type, enabled=False
        ):  # which puts no float16 together, on a CPU as on a GPU
            return self._mixed(fakes, generator)

    def _mixed(self, fakes: Tensor, generator: KeyedGenerator) -> Tensor:
        draws = processes.gathered(generator.uniform((2,))).double()
        shown = []
        for fake, (chance, place) in zip(processes.gathered(fakes), draws, strict=True):
            kept = fakes.new_empty((0, *fake.shape), dtype=torch.float16) if self.kept is None else self.kept
            if len(kept) < self.length:
                self.kept = torch.cat((kept, fake[None].half()))
                shown.append(fake)
                continue
            old = (place * self.length).long()[None]  # (1,); neither it nor the chance is read on the host
            before, swaps = kept.index_select(0, old), chance >= 0.5
            kept.index_copy_(0, old, torch.where(swaps, fake[None].half(), before))
            shown.append(torch.where(swaps, before[0].to(fake.dtype), fake))
        return processes.own_part(torch.stack(shown))


@register("objective", "cycle")
class Cycle(Opponent):
    """Adversarial, cycle and identity terms of both directions.

    Cycles weigh `cycle_weight`, the identity `identity_weight` times that, the adversarial terms
    `adversarial_weight`, that of restored photos `restored_weight` times as much; with 0 there is no
    discriminator of clean photos, which a `backward` that draws may do without. A `backward` with condition
    channels is given noise in them.
    """

    needs_clean = False

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
        check_weights("cycle", **weights, restored_weight=restored_weight)
        if history < 0:
            raise ValueError(f"objective.cycle.history is a number of photos from 0 on, got {history}")
        self.backward, self.gan_loss, self._make_optimizer = backward, loss, optimizer
        shown = {"clean": clean_discriminator, "degraded": degraded_discriminator}
        self.sides = {"clean": restored_weight, "degraded": 1.0}
        """What the adversarial term of each kind of photos weighs."""
        if restored_weight == 0:
            del shown["clean"], self.sides["clean"]
        self.discriminators = nn.ModuleDict(shown)
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.adversarial_weight = adversarial_weight
        self.histories = {name: History(history) for name in self.sides}

    def check(self, setting: Setting) -> None:
        super().check(setting)
        if not (setting.has_clean or setting.strangers):
            raise ValueError(
                "objective Cycle learns what clean photos look like, and these data have none: set "
                "data=unpaired_folder, with other clean photos in clean/"
            )
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
            shown = self._discriminator(name)
            if shown.in_channels != channels:
                raise ValueError(
                    f"the {name} discriminator takes {shown.in_channels} channels, the photos have "
                    f"{channels}: set objective.cycle.{name}_discriminator.in_channels={channels}"
                )
            if setting.patch_size < shown.minimum_size:
                raise ValueError(
                    f"the {name} discriminator takes photos from {shown.minimum_size} on, the patches are "
                    f"{setting.patch_size}: set data.patch_size={shown.minimum_size}"
                )

    def _discriminator(self, name: str) -> Discriminator:
        found = self.discriminators[name]
        assert isinstance(found, Discriminator)
        return found

    def partners(self) -> Iterable[nn.Parameter]:
        return self.backward.parameters()

    def make_optimizer(self) -> Optimizer:
        return self._make_optimizer(self.discriminators.parameters())

    def own_module(self) -> nn.Module:
        return self.discriminators

    def terms(self, step: Step) -> Terms:
        degraded, clean = step.degraded, strangers(step)
        made = {"degraded": self._degrade(clean, step)}
        if "clean" in self.sides or not self.draws:
            made["clean"] = step.restored
        step.shared["cycle"] = made
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

    def validation(self, step: Step) -> Terms:
        """How far a degraded photo is from itself after both ways."""
        return {"cycle": (self._degrade(step.restored, step) - step.degraded).abs().mean()}

    @property
    def draws(self) -> bool:
        """Whether `backward` is given noise."""
        return self.backward.condition_channels > 0

    def _degrade(self, photos: Tensor, step: Step, *, noise: float = 1.0) -> Tensor:
        """By `backward`, with so much noise where it takes some."""
        drawn = None
        if self.draws:  # (B,K,H,W)
            size = (self.backward.condition_channels, *photos.shape[2:])
            drawn = noise * step.generator("noise of backward").normal(size)
        answer: Tensor = self.backward(photos.contiguous(memory_format=step.memory_format), drawn)
        return answer.float()

    def own_loss(self, step: Step) -> tuple[Tensor, Terms]:
        reals = {"clean": strangers(step), "degraded": step.degraded}
        total, diagnostics = step.degraded.new_zeros(()), {}
        for name in self.sides:
            real = reals[name]
            fake = step.shared["cycle"][name].detach()
            fake = self.histories[name].mix(fake, step.generator(f"history of {name}"))
            seen, made = self._discriminator(name)(real).float(), self._discriminator(name)(fake).float()
            loss = self.gan_loss.discriminator(seen, made)
            loss = loss + self.gan_loss.penalty(self._discriminator(name), real, fake)
            total = total + loss
            diagnostics[f"{name}_loss"] = loss.detach()
            diagnostics[f"{name}_accuracy"] = 0.5 * (
                (seen > made.mean()).float().mean() + (made < seen.mean()).float().mean()
            )
        return total, diagnostics

    def get_extra_state(self) -> Tensor:
        """The histories, one a side, (sides,n,C,H,W) float16; n is 0 before the first step."""
        kept = [history.kept for history in self.histories.values()]
        known = [one for one in kept if one is not None]
        if len(known) < len(kept):
            return torch.empty(len(kept), 0, dtype=torch.float16)
        return torch.stack(known).cpu()

    def set_extra_state(self, state: Any) -> None:
        device = next(self.parameters()).device
        for history, kept in zip(self.histories.values(), state, strict=True):
            history.kept = kept.to(device).clone() if len(kept) else None


def strangers(step: Step) -> Tensor:
    """Clean photos that are not those of the degraded ones: (B,C,H,W).

    Where a batch has pairs, each sample's is the next one's, so that the pairing is not used.
    """
    clean = step.batch.clean
    assert clean is not None  # `check` has seen to it
    return clean if step.batch.unpaired else processes.own_part(processes.gathered(clean).roll(1, 0))
