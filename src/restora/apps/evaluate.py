"""`restora evaluate`: scores models and classical methods by the field's protocols, and compares them."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from restora.composing.path_values import quoted, with_quoted_paths
from restora.config import ConfigError, compose, missing_keys
from restora.files import check_writable
from restora.registry import part_of

HELP = """usage: restora evaluate WHAT benchmark=NAME [KEY=VALUE ...]

WHAT  weights=FILE [network=NAME [network.<argument>=...]]
      checkpoint=RUN_OR_CKPT
      model=MODEL_FOLDER
      method=NAME [method.<argument>=... seed=N max_time=90s], fitted to each
      photo, without training: zs_n2n, dip, zssr, double_dip; pnp_hqs, pnp_admm
      and red with method.denoiser=SOURCE
      classical=NAME[,NAME ...] or classical=all, alone or beside the others

  restora evaluate network=dncnn weights=dncnn_25.pth benchmark=bsd68_sigma25
  restora evaluate checkpoint=outputs/<run> benchmark=denoise \\
      benchmark.sigma=25 benchmark.root=photos/
  restora evaluate checkpoint=outputs/<run>     (its own held-out photos)
  restora evaluate classical=bm3d,nl_means benchmark=kodak24_sigma25 output=DIR
  restora evaluate method=zs_n2n classical=bm3d benchmark=kodak24_sigma25
  restora evaluate method=pnp_hqs method.denoiser=drunet.pth benchmark=deblur \\
      benchmark.root=photos/
  restora evaluate model=model/ benchmark=bsd68_sigma25 severities=5,15,25,50
  restora evaluate compare=DIR_A,DIR_B

summary.json and per_image.csv are written to output=DIR; compare= writes
comparison.json and, of photos kept by images=true, sheet.jpg.

benchmarks  denoise (benchmark.sigma), super_resolution (benchmark.scale),
            jpeg (benchmark.quality), deblur, inpaint, degraded, paired: with
            benchmark.root=FOLDER or benchmark/testset=NAME, and
            benchmark.color=gray|rgb|y. Ready: bsd68_sigma25, set5_x4,
            live1_q10; restora prepare testsets=NAME,... downloads their photos
options     self_ensemble, local_converter, tile=1088, per_channel,
            precision=bf16 or auto, threads=N, processes,
            metrics=psnr,ssim,ms_ssim, images=true, training_photos=FOLDER
            (near-duplicates of the test photos); --cfg job prints all of
            them with their values
"""

_LISTS = ("classical", "metrics", "compare", "severities")


def main(argv: list[str]) -> int:
    """Prints the table and writes the figures. Raises ValueError if something cannot be evaluated."""
    if not argv or any(word in ("-h", "--help") for word in argv):
        print(HELP)
        return 0 if argv else 2
    words = [word for word in argv if word not in ("--cfg", "-c", "job")]
    overrides = [tidy(word) for word in words]
    config = compose("evaluate", overrides)
    if len(words) < len(argv):
        print(OmegaConf.to_yaml(config))
        return 0

    from rich.console import Console

    console = Console(highlight=False)
    if config.compare is not None:
        from restora.apps.compare_sheet import write_sheet
        from restora.evaluation.comparison import compare

        output = None if config.output is None else Path(config.output).expanduser()
        if output is not None:
            check_writable(output, setting="output", folder=True)
        folders = [str(folder) for folder in config.compare]
        compare(folders, output, console)
        if output is not None:
            write_sheet(folders, output, console)
        return 0
    _take_first_severity(config)
    missing = [key for key in missing_keys(config) if key.startswith("benchmark.")]
    if missing:
        needed = " ".join(f"{key}=…" for key in missing)
        raise ConfigError(f"no value for {', '.join(missing)}: set {needed}")
    try:
        settings = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error
    assert isinstance(settings, dict)

    from restora.allocator import keep_freed_memory

    keep_freed_memory()  # or it goes back after each photo, a tenth of the CPU time
    from restora.apps.evaluate_plan import make_plan
    from restora.apps.evaluate_run import run

    run(make_plan(_strings(settings), overrides), console)
    return 0


def _take_first_severity(config: DictConfig) -> None:
    """Sets what `severities` varies, which then needs no value of its own."""
    if not config.severities or config.get("benchmark") is None:
        return
    key = getattr(part_of(config.benchmark, "benchmark"), "severity", None)
    if key is not None and OmegaConf.is_missing(config.benchmark, key):
        config.benchmark[key] = config.severities[0]


def tidy(word: str) -> str:
    """One override in Hydra's grammar: `a,b` becomes a list, and paths are quoted."""
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if not equals or not value or value == "null" or value[0] in "'\"[":
        return word
    if name in _LISTS:
        parts = [quoted(part) if name == "compare" else part for part in value.split(",")]
        return f"{key}=[{','.join(parts)}]"
    return with_quoted_paths([word])[0]


def _strings(settings: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in settings.items()}
