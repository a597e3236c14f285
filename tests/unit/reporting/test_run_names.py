"""Runs beside each other are named by what differs among them, in as few words as are clear."""

import pytest

from restora.reporting.naming import names, short_keys


def called(*runs, root="sweep"):
    records = [{"name": "dncnn"} | run for run in runs]
    return [name.label for name in names(records, [f"{root}/{index}" for index in range(len(runs))])]


def typed(*words, **config):
    return {"overrides": list(words), "config": config}


def test_only_what_differs_is_in_a_name_by_the_last_part_of_its_key():
    common = ("experiments=denoise/dncnn", "trainer.max_steps=100", "network=dncnn_small")
    runs = [
        typed(*common, f"family.optimizer.lr={lr}", f"seed={seed}")
        for lr in ("1e-3", "0.0002")
        for seed in (1, 2)
    ]
    assert called(*runs) == ["lr=0.001 seed=1", "lr=0.001 seed=2", "lr=0.0002 seed=1", "lr=0.0002 seed=2"]


def test_keys_that_end_alike_are_told_apart():
    runs = [
        typed(f"family.optimizer.lr={a}", f"family.discriminator_optimizer.lr={b}", f"seed={s}")
        for a, b, s in ((0.1, 0.2, 1), (0.2, 0.1, 2))
    ]
    assert called(*runs) == [
        "optimizer.lr=0.1 discriminator_optimizer.lr=0.2 seed=1",
        "optimizer.lr=0.2 discriminator_optimizer.lr=0.1 seed=2",
    ]
    assert short_keys(["seed", "data.seed", "a.b.lr", "c.b.lr", "lr"]) == [
        "seed",
        "data.seed",
        "a.b.lr",
        "c.b.lr",
        "lr",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("schedule@family.schedule=cosine", "schedule@family.schedule=constant"), ("cosine", "constant")),
        (("+schedule@family.schedule=[a,b]", "+schedule@family.schedule=[c]"), ("[a,b]", "[c]")),
        (("++family.schedule='two words'", "++family.schedule=two\\ more"), ("two words", "two more")),
        (("family/schedule=a", "family/schedule=b"), ("a", "b")),
        (("~family.schedule", "family.schedule=b"), ("off", "b")),
        (("family.schedule=true", "family.schedule=null"), ("true", "null")),
        (("family.schedule=1234567", "family.schedule=2"), ("1234567", "2")),
        (("family.schedule=0.9999", "family.schedule=0.999"), ("0.9999", "0.999")),
        (("family.schedule=0.00123456", "family.schedule=0.00098765"), ("0.00123", "0.000988")),
        (("family.schedule=0.0012345", "family.schedule=0.0012344"), ("0.0012345", "0.0012344")),
        (("family.schedule=a/x/best.ckpt", "family.schedule=a/y/best.ckpt"), ("x", "y")),
        (
            (f"family.schedule={'w' * 50}1", f"family.schedule={'w' * 50}2"),
            (f"…{'w' * 26}1", f"…{'w' * 26}2"),
        ),
    ],
)
def test_every_form_of_override(words, expected):
    assert called(*(typed(word) for word in words)) == [f"schedule={value}" for value in expected]


def test_what_others_typed_is_looked_up():
    """Also of a part, whose name is in the configuration; a run that typed the default is no other."""
    runs = [
        typed("network.depth=9", "schedule=cosine", network={"depth": 9}, schedule={"_target_": "cosine"}),
        typed(network={"depth": 17}, schedule={"_target_": "cosine"}),
        typed("seed=1", network={"depth": 20}, schedule={"_target_": "restora.x.Linear"}, seed=1),
    ]
    assert called(*runs) == [
        "depth=9 schedule=cosine",
        "depth=17 schedule=cosine",
        "depth=20 schedule=Linear seed=1",
    ]
    assert called(typed("seed=1", seed=1), typed(seed=1)) == ["dncnn (sweep/0)", "dncnn (sweep/1)"]


def test_what_machines_have_made_of_auto_is_said():
    """Also where no one typed it, but an experiment has it."""
    runs = [
        typed("trainer.precision=auto", trainer={"precision": "bf16-mixed"})
        | {"asked": {"trainer.precision": "auto"}},
        typed(trainer={"precision": "32-true"}) | {"asked": {"trainer.precision": "auto"}},
    ]
    assert called(*runs) == ["precision=bf16-mixed", "precision=32-true"]
    queued = typed("trainer.precision=auto", "seed=2", trainer={"precision": "auto"}, seed=2)
    begun = typed("trainer.precision=auto", "seed=1", trainer={"precision": "32-true"}, seed=1)
    assert called(queued, begun) == ["seed=2", "seed=1"]
    other = typed("trainer.precision=bf16", "seed=2", trainer={"precision": "bf16"}, seed=2)
    assert called(queued, other) == ["precision=auto", "precision=bf16"]


def test_a_name_of_its_own_is_enough():
    runs = [
        typed("experiments=a", "seed=1") | {"name": "unet"},
        typed("experiments=b", "seed=1", "network.depth=3") | {"name": "dncnn"},
        typed("experiments=b", "seed=2", "network.depth=3") | {"name": "dncnn"},
    ]
    assert called(*runs) == ["unet", "dncnn seed=1", "dncnn seed=2"]


def test_records_of_the_first_edition():
    """The words of a sweep's job stand in its sweep block, those of a single run in its command."""
    sweep = {
        "sweep": {"id": "x", "job": 0, "overrides": ["experiments=a", "seed=1"]},
        "command": "restora -m seed=1,2",
    }
    single = {"command": "restora experiments=a seed=7 'name=a b'"}
    broken = {"command": "restora train 'seed=3", "sweep": [1], "config": "x", "experiment": "a"}
    assert called(sweep, single, broken) == ["seed=1", "seed=7", "dncnn"]


def test_folders_tell_apart_what_nothing_else_does():
    assert called(typed("seed=1"), typed("seed=1"), typed("seed=2")) == [
        "seed=1 (sweep/0)",
        "seed=1 (sweep/1)",
        "seed=2",
    ]


def test_a_method_is_named_without_its_seed():
    found = names(
        [{"name": "dncnn"} | typed(f"network.depth={d}", f"seed={s}") for d in (3, 4) for s in (1, 2)],
        list("abcd"),
    )
    assert [name.method for name in found] == ["depth=3", "depth=3", "depth=4", "depth=4"]
    assert [name.seed for name in found] == ["seed=1", "seed=2"] * 2
    seeds = names([{"name": "dncnn"} | typed(f"seed={s}") for s in (1, 2)], list("ab"))
    assert [name.method for name in seeds] == ["dncnn", "dncnn"]
