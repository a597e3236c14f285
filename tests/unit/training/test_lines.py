"""The lines that a run prints beside its progress."""

import pytest

from restora.training.run import _say

LINE = "no near-duplicate of the 3 training photos in this run's validation set (1), BSD68 (68), Set5 (5)"


def test_a_terminal_breaks_a_line_between_words_and_a_file_holds_it_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    _say(LINE)
    assert capsys.readouterr().err == f"{LINE}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    _say(LINE)
    lines = [line.rstrip() for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == 3
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == LINE
