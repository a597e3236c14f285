"""The optimisers that a recipe may name: torch's, and Muon."""

import torch

from restora.registry import register
from restora.training.muon import Muon

__all__ = ["Muon"]

for _name in ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD"):
    register("optimizer", _name.lower())(getattr(torch.optim, _name))
