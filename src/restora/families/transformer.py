"""Transformers (Restormer, SwinIR, Uformer, HAT): patches grow while the batch shrinks.

What differs from the base recipe: training runs in stages (progressive learning). Attention over channels or
windows learns the statistics of its training patches, so patches grow towards the size of whole photos, at
about constant cost per step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from restora.families.base import Family
from restora.families.share import batches_before
from restora.registry import register
from restora.types import Batch


@register("family", "transformer")
class TransformerFamily(Family):
    """Recipe of Restormer (Zamir et al., CVPR 2022, section 4 and table of progressive learning).

    `stages`: each has the `start_step` it begins at, its `patch_size` (of the clean photo) and
    `batch_size`. The data module cuts patches by the same list; this module checks the patch size and logs
    both. Null trains with the data module's one patch size.
    """

    name = "transformer"

    def __init__(self, *, stages: Sequence[Mapping[str, int]] | None = None, **recipe: Any) -> None:
        super().__init__(**recipe)
        self.stages = None if stages is None else [dict(stage) for stage in stages]

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        super().on_train_batch_start(batch, batch_index)
        if self.stages is None:
            return
        step = batches_before(self.trainer) // self.trainer.accumulate_grad_batches
        stage = [stage for stage in self.stages if stage["start_step"] <= step][-1]
        patch_size = batch.degraded.shape[-1] * self.network.scale
        if patch_size != stage["patch_size"]:
            raise ValueError(
                f"step {step} should train on patches of {stage['patch_size']}, got {patch_size}: "
                "data.stages must be ${family.stages}"
            )
        if not self.step_log.now:
            return
        self.log("train/patch_size", float(patch_size), batch_size=1)
        self.log("train/batch_size", float(len(batch.names) * self.trainer.world_size), batch_size=1)
