"""The fixtures of the server's tests."""

import pytest

pytest.importorskip("fastapi", reason="restora[serve] is not installed")

from serving_fixtures import gated, model_folders, served

__all__ = ["gated", "model_folders", "served"]
