"""`restora networks`: the table, its filters, and what it says to a misspelt name."""

import json
from pathlib import Path

import pytest
from warm_start import run_restora

from restora import registry
from restora.apps.networks import configurations, main, measure, quantity


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main([*arguments, "--json"]) == 0
    entries: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return entries


@pytest.mark.slow
def test_names_and_patterns_choose(capsys: pytest.CaptureFixture[str]) -> None:
    names = [entry["name"] for entry in listed(capsys, "dncnn*", "espcn")]
    assert {"dncnn", "dncnn_small", "espcn"} <= set(names)
    assert all(str(name).startswith(("dncnn", "espcn")) for name in names)


@pytest.mark.slow
def test_counts_are_those_of_the_papers(capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = listed(capsys, "vdsr")
    assert entry["parameters"] == 664_704
    # every weight meets every pixel of the enlarged photo
    assert entry["macs"] == 664_704 * (256 * 2) ** 2
    assert (entry["family"], entry["scale"]) == ("residual_cnn", 2)


@pytest.mark.slow
def test_family_and_task_filter(capsys: pytest.CaptureFixture[str]) -> None:
    entries = listed(capsys, "*_small", "--family", "residual_cnn", "--task", "super_resolution")
    assert {"edsr_small", "vdsr_small"} <= {entry["name"] for entry in entries}
    assert all("residual_cnn" in entry["family"] for entry in entries)
    assert all("super_resolution" in entry["tasks"] for entry in entries)
    assert "ffdnet_small" not in {entry["name"] for entry in entries}


@pytest.mark.slow
def test_the_family_is_that_of_the_experiments_that_train_it(capsys: pytest.CaptureFixture[str]) -> None:
    (srresnet, edsr) = listed(capsys, "srresnet", "edsr_small")[::-1]
    assert (srresnet["family"], edsr["family"]) == ("gan, residual_cnn", "residual_cnn")
    assert {entry["name"] for entry in listed(capsys, "srresnet", "dncnn", "--family", "gan")} == {"srresnet"}


def test_a_misspelt_name_gets_near_ones() -> None:
    with pytest.raises(ValueError, match="no network 'dncn': did you mean dncnn.*lists them"):
        main(["dncn"])


def test_a_network_that_cannot_be_built_leaves_the_others_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither one without `_target_`, nor a list, nor a class that is no network."""
    (tmp_path / "network").mkdir()
    for name, text in {
        "own": "_target_: dncnn\ndepth: 3\n",
        "own_nameless": "in_channels: 3\n",
        "own_list": "- _target_: dncnn\n",
        "own_foreign": "_target_: torch.nn.ReLU\n",
        "own_refused": "_target_: dncnn\ndepth: 0\n",
    }.items():
        (tmp_path / "network" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(registry, "_folders", [tmp_path])
    assert main(["own*", "--json"]) == 1
    written = capsys.readouterr()
    assert [entry["name"] for entry in json.loads(written.out)] == ["own"]
    reasons = dict(line.split(" ", 1) for line in written.err.splitlines() if line.startswith("own"))
    assert all(reason.startswith("cannot be built: ") for reason in reasons.values())
    assert "no _target_" in reasons["own_nameless"]
    assert "no _target_" in reasons["own_list"]
    assert "ReLU is not a network" in reasons["own_foreign"]
    assert "depth" in reasons["own_refused"]


def test_networks_are_timed_only_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("restora.apps.networks.measure", lambda node: 12.0)
    assert main(["espcn_small"]) == 0
    assert "CPU ms" not in capsys.readouterr().out
    assert main(["espcn_small", "--time", "quick"]) == 0
    assert "CPU ms" in capsys.readouterr().out


def test_times_are_measured() -> None:
    fast, slow = (measure(configurations()[name]) for name in ("espcn_small", "ffdnet_color"))
    assert 0 < fast < slow


@pytest.mark.slow
def test_the_table_fits_a_terminal_of_80_columns() -> None:
    chosen = ["dncnn_small", "patch_mlp_one_layer", "edsr_small", "vdsr_small"]
    done = run_restora("networks", *chosen, "--time", "quick", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    for name in chosen:
        row = next(line for line in lines if line.startswith(name))
        assert row.split()[1] == "residual_cnn"
    assert "CPU ms" in lines[0] + lines[1]


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "-"), (950, "950"), (12_809, "12.8K"), (999_600, "1.00M"), (664_704, "665K"), (3.29e12, "3.29T")],
)
def test_quantities_have_three_digits(number: float | None, text: str) -> None:
    assert quantity(number) == text
