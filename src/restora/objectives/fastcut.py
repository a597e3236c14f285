"""FastCUT: trains one network and one discriminator on two unpaired sets of photos.

T. Park, A. Efros, R. Zhang, J.-Y. Zhu, "Contrastive Learning for Unpaired Image-to-Image Translation", ECCV
2020. Restored photos should look like clean ones (adversarial loss), and in the network's own features each
position of the restored photo should match the same position of the degraded photo better than others
(PatchNCE, a contrastive loss). Unlike CycleGAN it has no second network and no cycle. FastCUT is the paper's
variant without an identity term, with a weight of 10 and flips: features of a mirrored photo should be the
mirrored features.

Note: the first features are the pixels, the others are outputs of the trained network's modules that `layers`
names, by default of convolutions spread over its first half. The small networks that project them (`heads`)
are trained by the network's optimiser and are part of the checkpoint.

Legend: B samples, C channels, H height, W width, N positions, D projected features.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from restora.keyed import KeyedGenerator
from restora.losses.adversarial import AdversarialLoss
from restora.networks.base import Network
from restora.networks.discriminators import Discriminator
from restora.objectives.adversarial import discriminator_loss
from restora.objectives.base import MakeOptimizer, Opponent, Setting, Step, Terms, check_weights
from restora.objectives.cycle import check_unpaired, unpaired_clean
from restora.objectives.showing import check_discriminator
from restora.registry import register

_FOUND = 4
"""Number of convolutions used where no layers are named."""
_PROBE = 32
"""Side of the probe photo that finds which modules run, in which order, and their channels."""


class _Enough(Exception):
    """All wanted features are computed: the rest of the network need not run."""


@register("objective", "fastcut")
class FastCut(Opponent):
    """An adversarial term of `adversarial_weight` and PatchNCE of `contrast_weight`.

    `places` is the number of positions compared per photo, `features` the size of a projected feature vector.
    `layers` are names of modules of the network (`model.4`), null for convolutions of its first half. With
    `flips` half of the degraded photos are mirrored before their features are computed and mirrored back.
    """

    needs_clean = False
    takes_target = False

    def __init__(
        self,
        *,
        discriminator: Discriminator,
        loss: AdversarialLoss,
        optimizer: MakeOptimizer,
        layers: Sequence[str] | None = None,
        contrast_weight: float = 10.0,
        adversarial_weight: float = 1.0,
        places: int = 256,
        features: int = 256,
        temperature: float = 0.07,
        flips: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights("fastcut", contrast_weight=contrast_weight, adversarial_weight=adversarial_weight)
        if places < 2 or features < 1:
            raise ValueError(
                "objective.fastcut: places must be 2 or more and features 1 or more, "
                f"got places={places} features={features}"
            )
        if temperature <= 0:
            raise ValueError(f"objective.fastcut.temperature must be above 0, got {temperature}")
        if layers is not None and (not layers or len(set(layers)) < len(layers)):
            raise ValueError(
                "objective.fastcut.layers must be names of modules, each once, or null to choose some; "
                f"got {list(layers)}"
            )
        self.discriminator, self.gan_loss, self._make_optimizer = discriminator, loss, optimizer
        self.layers = None if layers is None else tuple(layers)
        self.contrast_weight, self.adversarial_weight = contrast_weight, adversarial_weight
        self.places, self.features, self.temperature, self.flips = places, features, temperature, flips
        self.taps: tuple[str, ...] = ()
        """The compared layers, in the order in which the network runs them; set by `check`."""
        self.heads = nn.ModuleList()
        """One projection for the pixels and for each tap: (B,N,C) -> (B,N,D)."""

    def check(self, setting: Setting) -> None:
        super().check(setting)
        network = setting.network
        check_unpaired("FastCut", setting)
        if network.scale != 1 or network.condition_channels:
            raise ValueError("objective FastCut takes a network of scale 1 without condition: choose another")
        key = "objective.fastcut.discriminator"
        check_discriminator(self.discriminator, network.out_channels, setting, key=key)
        self._tap(network)

    def _tap(self, network: Network) -> None:
        """Chooses the layers and makes a head for each."""
        ran = _ran(network)
        if self.layers is None:
            found = [
                name
                for name, module in network.named_modules()
                if isinstance(module, nn.Conv2d) and name in ran
            ]
            found = sorted(found, key=list(ran).index)
            half = found[: max(len(found) // 2 + 1, 1)]
            count = min(_FOUND, len(half))
            self.taps = tuple(half[(number + 1) * len(half) // count - 1] for number in range(count))
        else:
            unknown = [name for name in self.layers if name not in ran]
            if unknown:
                near = ", ".join(list(ran)[:12])
                raise ValueError(
                    f"objective.fastcut.layers: {type(network).__name__} has no module {unknown[0]!r} that "
                    f"gives (B,C,H,W); it runs {near}, …: name some of them, or set layers=null"
                )
            self.taps = tuple(name for name in ran if name in self.layers)
        widths = [network.in_channels, *(ran[name] for name in self.taps)]
        self.heads = nn.ModuleList(_head(width, self.features) for width in widths)

    def partners(self) -> Iterable[nn.Parameter]:
        return self.heads.parameters()

    def make_optimizer(self) -> Optimizer:
        return self._make_optimizer(self.discriminator.parameters())

    def terms(self, step: Step) -> Terms:
        fake = self.discriminator(step.restored).float()
        with torch.no_grad():
            real = self.discriminator(unpaired_clean(step)).float()
        return {
            "adversarial": self.adversarial_weight * self.gan_loss.generator(real, fake),
            "contrast": self.contrast_weight * self.contrast(step, flips=self.flips),
        }

    def validation_terms(self, step: Step) -> Terms:
        """The same terms on one photo, without flips; logits of clean photos are taken as 0."""
        terms = {"contrast": self.contrast_weight * self.contrast(step, flips=False)}
        if min(step.restored.shape[-2:]) >= self.discriminator.minimum_size:
            fake = self.discriminator(step.restored).float()
            score = self.gan_loss.generator(torch.zeros_like(fake), fake)
            terms["adversarial"] = self.adversarial_weight * score
        return terms

    def contrast(self, step: Step, *, flips: bool) -> Tensor:
        """PatchNCE, a mean over layers, samples and positions.

        A position of the restored photo should match the same position of the degraded photo among others.
        """
        generator = step.generator("fastcut")
        mirrored = (generator.uniform() < 0.5) & flips  # (B,)
        network, order = step.network, step.memory_format
        asked = [step.restored, *_features(network, step.restored.contiguous(memory_format=order), self.taps)]
        with torch.no_grad():
            degraded = _mirror(step.degraded, mirrored).contiguous(memory_format=order)
            known = [degraded, *_features(network, degraded, self.taps)]
        total = step.restored.new_zeros(())
        # similarities are divided by a small temperature, which bfloat16's rounding errors would be too
        with torch.autocast(degraded.device.type, enabled=False):
            for head, query, key in zip(self.heads, asked, known, strict=True):
                at = self._places(query.shape[-2:], generator)  # (B,N)
                found = F.normalize(head(_picked(query.float(), at)), dim=-1)
                with torch.no_grad():
                    sought = F.normalize(head(_picked(_mirror(key.float(), mirrored), at)), dim=-1)
                alike = found @ sought.transpose(1, 2) / self.temperature  # (B,N,N)
                right = torch.arange(at.shape[1], device=at.device).expand(len(at), -1)
                total = total + F.cross_entropy(alike.flatten(0, 1), right.flatten())
        return total / len(self.heads)

    def _places(self, size: Sequence[int], generator: KeyedGenerator) -> Tensor:
        """Random distinct positions per sample: (B,N) flat indices, row * W + column."""
        pixels = size[0] * size[1]
        return generator.uniform((pixels,)).topk(min(self.places, pixels), dim=1).indices

    def own_loss(self, step: Step) -> tuple[Tensor, Terms]:
        shown = step.restored.detach()
        loss, figures = discriminator_loss(self.discriminator, self.gan_loss, unpaired_clean(step), shown)
        return loss, {name: figures[name] for name in ("loss", "accuracy")}


def _head(channels: int, features: int) -> nn.Sequential:
    """Two linear layers with weights from N(0, 0.02^2), as in the authors' code."""
    head = nn.Sequential(nn.Linear(channels, features), nn.ReLU(), nn.Linear(features, features))
    for layer in (head[0], head[2]):
        assert isinstance(layer, nn.Linear)
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return head


def _ran(network: Network) -> dict[str, int]:
    """Output channels of each module that returns (B,C,H,W), by name, in the order of execution."""
    ran: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: Any, made: Any) -> None:
            if isinstance(made, Tensor) and made.ndim == 4:
                ran.setdefault(name, made.shape[1])

        return hook

    parameter = next(network.parameters())
    photo = torch.zeros(1, network.in_channels, _PROBE, _PROBE, device=parameter.device)
    was, training = [], [module for module in network.modules() if module.training]
    try:
        network.eval()
        was = [module.register_forward_hook(note(name)) for name, module in network.named_modules() if name]
        with torch.no_grad():
            network.forward(photo)
    finally:
        for handle in was:
            handle.remove()
        for module in training:
            module.training = True
    return ran


def _features(network: Network, photos: Tensor, taps: Sequence[str]) -> list[Tensor]:
    """The outputs of the modules `taps` for the photos, in that order; the network stops after the last.

    Runs uncompiled, as compiled code skips hooks.
    """
    caught: dict[str, Tensor] = {}

    def catch(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: Any, made: Tensor) -> None:
            caught.setdefault(name, made)
            if len(caught) == len(taps):
                raise _Enough

        return hook

    modules = dict(network.named_modules())
    with ExitStack() as hooks:
        for name in taps:
            handle = modules[name].register_forward_hook(catch(name))
            hooks.callback(handle.remove)
        try:
            with torch.compiler.set_stance("force_eager"):
                network.forward(photos)
        except _Enough:
            pass
    return [caught[name] for name in taps]


def _mirror(photos: Tensor, which: Tensor) -> Tensor:
    """Mirrors the samples where `which` (B,) is true, left to right."""
    return torch.where(which.view(-1, 1, 1, 1), photos.flip(-1), photos)


def _picked(features: Tensor, at: Tensor) -> Tensor:
    """(B,C,H,W) at positions (B,N) -> (B,N,C)."""
    flat = features.flatten(2)
    return flat.gather(2, at[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)
