"""What keeps a run that a test starts by command small: words in front of the test's own, which win."""

DNCNN = ["network=dncnn_small", "network.depth=4", "network.channels=8"]
TINY = [
    "data.patch_size=24",
    "data.batch_size=4",
    "data.val_crop=48",
    "data.test_crop=48",
    "trainer.log_every_n_steps=1",
    "leakage.check=false",
    "threads=1",
]
UNLOGGED = [*TINY, "logger.mode=disabled"]
