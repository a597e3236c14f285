"""No password or key is printed or stored."""

import pytest

from restora.redaction import redacted, without_secrets


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://me:hunter22@host/a.zip: 404", "https://***@host/a.zip: 404"),
        ("ftp://hunter22@host/a", "ftp://***@host/a"),
        ("http://me:p/w@host/ and http://x:hunter22@y/", None),
        ("https://host/a?token=hunter22&x=1", "https://host/a?token=***&x=1"),
        ("https://host/a?X-Amz-Signature=hunter22", "https://host/a?X-Amz-Signature=***"),
        ("+logger.api_key=hunter22 seed=1", "+logger.api_key=*** seed=1"),
        ("hydra.job.env_set.WANDB_API_KEY=hunter22", "hydra.job.env_set.WANDB_API_KEY=***"),
        ('{"password": "hunter22"}', None),
        ("the key is secret-of-the-environment", "the key is ***"),
        ("data.source.root=/a@b/c seed=1 a: b", "data.source.root=/a@b/c seed=1 a: b"),
    ],
)
def test_texts(text: str, kept: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "secret-of-the-environment")
    cleaned = redacted(text)
    assert "hunter22" not in cleaned
    assert kept is None or cleaned == kept


def test_plain_values() -> None:
    found = without_secrets({"a": ["http://u:hunter22@h"], "api_key": "hunter22", "depth": 3, "token": None})
    assert found == {"a": ["http://***@h"], "api_key": "***", "depth": 3, "token": None}
