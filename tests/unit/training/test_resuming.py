"""What the words of a run folder may say, without starting a run: files that are bombs, and what the user has
typed again."""

import json
import math
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from restora import registry
from restora.config import ConfigError
from restora.training.command import repeating
from restora.training.resuming import continued, refuse_foreign, stored_overrides, what_to_do
from restora.training.starting import earlier_score

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


def folder_with(tmp_path: Path, text: str, *words: str) -> Path:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(text)
    (tmp_path / "run.json").write_text(json.dumps({"overrides": list(words)}))
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "- !!python/object/apply:os.system ['touch OWNED']\n",
        "- !!python/name:os.system\n",
        "[" * 5000,
        "- seed=1\n" + "#" * (1 << 21),
        "- 1\n",
        "seed: 1\n",
    ],
    ids=["aliases", "a call", "a name", "deep", "large", "a number", "a mapping"],
)
def test_a_file_of_overrides_that_is_none_runs_nothing_and_gives_way(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.process_time()
    folder = folder_with(tmp_path, text.replace("OWNED", str(tmp_path / "owned")), "seed=3", "resume=/x")
    assert stored_overrides(folder, "run") == ["seed=3"]
    assert "overrides.yaml" in caplog.text
    assert not (tmp_path / "owned").exists()
    assert time.process_time() - started < 6


def test_what_the_user_has_typed_again_is_not_asked_of_the_file(tmp_path: Path) -> None:
    word = "name=${oc.env:HOME}"
    folder = folder_with(tmp_path, f"- seed=1\n- {word}\n", "seed=1", word)
    with pytest.raises(ConfigError, match="add 'name="):
        stored_overrides(folder, "run")
    assert stored_overrides(folder, "run", [word]) == ["seed=1"]
    (tmp_path / "other").mkdir()
    assert stored_overrides(folder_with(tmp_path / "other", "", "a=${b.c}"), "run") == ["a=${b.c}"]


def test_a_folder_of_configuration_is_named_as_plugins_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own := tmp_path / "my conf").mkdir()
    (tmp_path / "run").mkdir()
    words = ["loss@family.loss=mine", "plugins=[mylab]"]
    run = folder_with(tmp_path / "run", json.dumps(words), *words)
    command = repeating(words, folders=[str(own)])
    (run / "run.json").write_text(json.dumps({"overrides": words, "command": command}))
    monkeypatch.setattr(registry, "_folders", [])
    typed = [f"resume={run}", "trainer.max_steps=30"]
    with pytest.raises(ConfigError, match=rf"add plugins=\[mylab\] --config-dir '{own}' if you trust it"):
        continued(typed)
    with pytest.raises(ConfigError, match=rf"with --config-dir '{own}', .*add --config-dir"):
        continued([*typed, "plugins=[mylab]"])
    registry.use_configuration([str(own)])
    with pytest.raises(ConfigError, match=r"add plugins=\[mylab\] if"):
        continued(typed)
    assert words[0] in continued([*typed, "plugins=[mylab]"])
    own.rmdir()
    registry._folders.clear()
    with pytest.raises(ConfigError, match="does not exist: name its new place"):
        continued(typed)


@pytest.mark.parametrize(
    "place", ["/x/run", "${run_dir}", "/x/run/../other", "/x/runner", "${run_dir}/../b", "y"]
)
def test_callbacks_write_in_the_folder_of_the_run(place: str) -> None:
    node = {"run_dir": "/x/run", "callbacks": {"best": None, "last": {"directory": place}}}
    if place in ("/x/run", "${run_dir}"):
        refuse_foreign(OmegaConf.create(node), [])
        return
    with pytest.raises(ConfigError, match=r"callbacks\.last\.directory"):
        refuse_foreign(OmegaConf.create(node), [])
    refuse_foreign(OmegaConf.create(node), [f"callbacks.last.directory={place}"])


def test_a_finished_run_gives_the_score_that_it_was_monitored_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = {"val/psnr": 28.0, "val/loss": 0.25}
    record = {"status": "finished", "metrics": {"best": best}, "config": {"seed": 1}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert earlier_score(tmp_path) == 28.0
    record["config"] = {"monitor": {"metric": "val/loss", "direction": "min"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert earlier_score(tmp_path) == 0.25
    assert capsys.readouterr().err.count("finished already: skipped") == 2


@pytest.mark.parametrize("value", [5, "x", [1]])
def test_a_record_without_a_configuration_counts_as_lost(
    value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = folder_with(tmp_path, "- seed=3\n")
    (folder / "run.json").write_text(json.dumps({"overrides": ["seed=3"], "config": value, "process": value}))
    assert continued([f"resume={folder}"])[0] == "seed=3"
    assert what_to_do(folder, {}, asked=True, retry=False) == "go on"
    (folder / "run.json").write_text(json.dumps({"status": "finished", "metrics": value, "process": value}))
    assert what_to_do(folder, {}, asked=False, retry=False) == "skip"
    assert math.isnan(earlier_score(folder))
