"""How `restora restore` restores each photo and video."""

from dataclasses import dataclass

from restora.apps.restoring.masks import Masks


@dataclass(frozen=True)
class Settings:
    """The user's options beside the model. With `estimate`, each photo's noise level is estimated."""

    masks: Masks | None = None
    strength: float = 1.0
    self_ensemble: bool = False
    quality: int | None = None
    strip_metadata: bool = False
    compare: bool = False
    estimate: bool = False
