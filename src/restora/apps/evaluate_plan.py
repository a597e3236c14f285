"""Builds the objects of `restora evaluate` from its settings: methods, benchmark and output folder."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from restora import registry, vocabulary
from restora.artifact.restorer import pick_device
from restora.artifact.sources import Loaded, from_weights, open_source
from restora.artifact.tiles import check_tile
from restora.config import build
from restora.degradations.parameters import as_range
from restora.evaluation.benchmarks.base import Benchmark
from restora.evaluation.benchmarks.degraded import Degraded
from restora.evaluation.benchmarks.denoise import Denoise
from restora.evaluation.benchmarks.held_out import HeldOut
from restora.evaluation.classical import METHODS
from restora.evaluation.classical import unavailable as not_installed
from restora.evaluation.loading import trained_range
from restora.evaluation.methods import (
    ClassicalMethod,
    FittedMethod,
    Method,
    NetworkMethod,
    Options,
    with_classical,
)
from restora.evaluation.protocol import Protocol
from restora.evaluation.scorer import Scorer
from restora.evaluation.severity import at_severity
from restora.files import check_writable
from restora.metrics.registry import unavailable
from restora.words import AGAINST_NOISY, NOISY_REFERENCE
from restora.zoo.index import is_zoo

_USUAL = {"color": "rgb", "border": None, "round_output": True, "y_rounded": False}
"""Defaults for null in a benchmark, if the network under test does not record how it was scored."""

_OF_NETWORKS = {
    "self_ensemble": False,
    "local_converter": "auto",
    "tile": 0,
    "overlap": None,
    "per_channel": False,
    "precision": "float32",
    "trained": None,
}
"""Settings that only networks have, with their defaults."""


@dataclass(frozen=True)
class Entry:
    """A row of the table: a method, its description, and the same method without the user's options."""

    method: Method
    description: dict[str, Any]
    trained: tuple[float, float] | None = None
    plain: NetworkMethod | None = None
    effects: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """All objects of one command. Without severities the benchmark is run unchanged."""

    entries: list[Entry]
    benchmark: Benchmark
    benchmark_name: str
    severities: list[float]
    metrics: list[str]
    processes: int | None
    images: bool
    output: Path
    notes: list[str]
    training_photos: str | None = None
    """Folder that is searched for near-duplicates of the test photos."""


def make_plan(settings: Mapping[str, Any], overrides: Sequence[str]) -> Plan:
    """Builds all objects of a command. Raises ValueError for a user's mistakes."""
    vocabulary.use_threads(settings["threads"])
    loaded = _load(settings, overrides)
    if loaded is None:
        _refuse_network_options(settings)
    node = settings.get("benchmark")
    benchmark = _held_out(loaded) if node is None else _benchmark(node, loaded)
    benchmark.check()
    entries = [] if loaded is None else [_network_entry(loaded, settings, benchmark)]
    classical, left_out = _classical(settings["classical"], benchmark)
    entries += [Entry(method, {"classical": method.name}) for method in classical]
    entries += _fitted(settings, benchmark, overrides)
    _name_apart(entries)
    if not entries and settings["training_photos"] is None:
        raise ValueError(
            "evaluate what? Set network=NAME weights=FILE, checkpoint=RUN_OR_CKPT, model=MODEL_FOLDER, "
            "method=NAME or classical=NAME"
        )
    _check_effect(entries, benchmark)
    name = _choice(overrides, "benchmark") if node is not None else "held_out"
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    return Plan(
        entries=entries,
        benchmark=benchmark,
        benchmark_name=name,
        severities=_severities(settings["severities"], benchmark),
        metrics=_metrics(settings["metrics"], benchmark),
        processes=_processes(settings["processes"]),
        images=bool(settings["images"]),
        output=_output(settings["output"] or Path("outputs") / "evaluate" / name / stamp),
        notes=[*_notes(loaded), *_reference(benchmark), *left_out],
        training_photos=settings["training_photos"],
    )


def _load(settings: Mapping[str, Any], overrides: Sequence[str]) -> Loaded | None:
    """The network under test; None if only other methods are tested."""
    network = settings.get("network")
    given = {key: settings[key] for key in ("weights", "checkpoint", "model") if settings[key] is not None}
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} each name a network: give one of them")
    if network is None:
        return open_source(next(iter(given.values()))) if given else None
    if not given:
        raise ValueError("network= needs its weights: set weights=FILE (or use checkpoint= or model=)")
    ((key, source),) = given.items()
    file = Path(source).expanduser()
    if key == "model" or is_zoo(source) or file.is_dir():
        raise ValueError(f"{key}={source} brings its own network: leave network= out")
    words = [word.lstrip("+").partition("=")[0] for word in overrides]
    chosen = {word.removeprefix("network.") for word in words if word.startswith("network.")}
    scale = (settings.get("benchmark") or {}).get("scale")
    return from_weights(network, str(file), name=_choice(overrides, "network"), chosen=chosen, scale=scale)


def _refuse_network_options(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for an option of networks where none is tested."""
    for key, usual in _OF_NETWORKS.items():
        if settings[key] != usual:
            raise ValueError(f"{key}= is for a network: set weights=, checkpoint= or model= too")


def _held_out(loaded: Loaded | None) -> Benchmark:
    """The held-out photos of a run, scored by the run's own protocol."""
    config = None if loaded is None else loaded.config
    if loaded is None or not isinstance(config, dict):
        raise ValueError(
            "evaluate on what? Set benchmark=denoise, super_resolution, jpeg, deblur, inpaint, degraded or "
            "paired, or a ready one such as benchmark=bsd68_sigma25; a run (checkpoint=RUN) has held-out "
            "photos of its own"
        )
    protocol = loaded.protocol or _protocol_of_then(config, loaded)
    root = str((config["data"].get("source") or {}).get("root") or config.get("name"))
    return HeldOut(root=root, configuration=config, reference=loaded.reference, **protocol)


def _protocol_of_then(config: Mapping[str, Any], loaded: Loaded) -> dict[str, Any]:
    """The protocol of an older run, which did not record one."""
    network = loaded.network
    made = Protocol.of_run(config.get("protocol"), channels=network.frame_channels, scale=network.scale)
    return asdict(made)


def _benchmark(node: Mapping[str, Any], loaded: Loaded | None) -> Benchmark:
    values = dict(node)
    if "degradation" in values:
        degradation = values["degradation"] or (None if loaded is None else loaded.degradation)
        if degradation is None:
            raise ValueError(
                "which degradation? Set degradation@benchmark.degradation=NAME (any of conf/degradation), or "
                "test a run or model folder, which knows what it was trained against"
            )
        if not values["degradation"]:
            registry.build(degradation, "degradation")  # from a file: registered parts only
        values["degradation"] = degradation
    own = {} if loaded is None or loaded.protocol is None else loaded.protocol
    for key, usual in _USUAL.items():
        if key in values and values[key] is None:
            values[key] = own.get(key, usual)
    benchmark = build(values, "benchmark")
    assert isinstance(benchmark, Benchmark)
    if isinstance(benchmark, Degraded):
        benchmark = replace(benchmark, configuration=values["degradation"])
    return benchmark


def _network_entry(loaded: Loaded, settings: Mapping[str, Any], benchmark: Benchmark) -> Entry:
    converter = settings["local_converter"]
    auto = converter == "auto"
    device = pick_device(str(settings["device"]))  # refuses a device that is not there
    options = Options(
        self_ensemble=bool(settings["self_ensemble"]),
        local_converter=loaded.local_converter if auto else _patch(converter),
        tile=vocabulary.tile(settings["tile"], default=0),
        overlap=settings["overlap"],
        per_channel=bool(settings["per_channel"]),
        precision=vocabulary.precision(settings["precision"], device.type),
        device=str(settings["device"]),
    )
    if options.overlap is not None:
        if options.tile == 0:
            raise ValueError("overlap= is of tiles, and the photos are restored in one piece: set tile= too")
        check_tile(options.tile, options.overlap, loaded.network.size_multiple)
    own = loaded.local_converter if auto else None
    plain = replace(options, self_ensemble=False, tile=0, local_converter=own)
    luminance = benchmark.color == "y" and benchmark.task == "super_resolution"
    made = NetworkMethod(loaded.name, loaded.network, options, luminance)
    benchmark.planes(made.intake)  # refuses a network that the benchmark cannot feed
    if made.network.condition_channels and benchmark.photos:
        _check_condition(made, benchmark)
    return Entry(
        method=made,
        description={
            "network": type(loaded.network).__name__,
            "source": loaded.source,
            "changed": loaded.changed,
            "parameters": sum(p.numel() for p in loaded.network.parameters()),
            "options": {
                "self_ensemble": options.self_ensemble,
                "local_converter": options.local_converter,
                "tile": options.tile,
                "overlap": options.overlap,
                "per_channel": options.per_channel,
                "precision": options.precision,
            },
        },
        trained=_trained(settings["trained"], loaded, benchmark),
        plain=None if plain == options else NetworkMethod(loaded.name, loaded.network, plain, luminance),
        effects=[text for text in options.effects if text not in plain.effects],
    )


def _check_condition(made: NetworkMethod, benchmark: Benchmark) -> None:
    """Refuses a network whose condition is not what the benchmark gives, by the first photo."""
    observed = benchmark.observe(0, made.intake)
    fills = made.network.tasks == ("inpaint",)
    if observed.condition is None or (fills and observed.mask is None):
        needs = (
            "the mask of what is known: evaluate it with benchmark=inpaint"
            if fills
            else "a condition (a noise level, for most): evaluate it with benchmark=denoise"
        )
        raise ValueError(
            f"{made.name} needs {needs}; this benchmark ({benchmark.title}) gives "
            f"{'none' if observed.condition is None else 'noise levels'}"
        )


def _check_effect(entries: Sequence[Entry], benchmark: Benchmark) -> None:
    """Refuses a level for networks that take one where no network under test does."""
    methods = [entry.method for entry in entries]
    takes = any(isinstance(method, NetworkMethod) and method.network.condition_channels for method in methods)
    if isinstance(benchmark, Denoise) and benchmark.conditioned_sigma is not None and not takes:
        names = ", ".join(method.name for method in methods) or "no method"
        raise ValueError(
            f"benchmark.conditioned_sigma={benchmark.conditioned_sigma:g} is for a network that takes the "
            f"noise level, and {names} does not: leave it out"
        )
    of_frames = any(method.intake.frames > 1 for method in methods)
    if isinstance(benchmark, Denoise) and benchmark.motion is not None and not of_frames:
        raise ValueError("benchmark.motion is for networks that take several frames: leave it out")


def _classical(names: Any, benchmark: Benchmark) -> tuple[list[ClassicalMethod], list[str]]:
    """The methods, and a note on each of `all` whose package is not installed."""
    task = benchmark.classical_task
    listed, left_out = [str(name) for name in _listed(names)], []
    if "all" in listed:
        every = {name: not_installed(name) for name in METHODS.get(task, {})}
        left_out = [f"{name} was not computed: {reason}" for name, reason in every.items() if reason]
        given = [name for name in listed if name != "all"]
        listed = given + [name for name, reason in every.items() if not reason]
    methods = [ClassicalMethod(name, task) for name in dict.fromkeys(listed)]
    for method in methods:
        if reason := not_installed(method.name):
            raise ValueError(f"classical={method.name} {reason}")
    return methods, left_out


def _name_apart(entries: Sequence[Entry]) -> None:
    """A network that has the name of another method becomes NAME_network: figures are kept by name."""
    others = {entry.method.name for entry in entries if not isinstance(entry.method, NetworkMethod)}
    for method in [method for entry in entries for method in (entry.method, entry.plain) if method]:
        if isinstance(method, NetworkMethod) and method.name in others:
            method.name += "_network"


def _fitted(settings: Mapping[str, Any], benchmark: Benchmark, overrides: Sequence[str]) -> list[Entry]:
    """The entry of the method that is fitted to each photo, if one is chosen."""
    node = settings.get("method")
    if node is None:
        unused = [key for key in ("seed", "max_time") if any(o.startswith(f"{key}=") for o in overrides)]
        if unused:
            raise ValueError(
                f"{unused[0]}= is for a method that is fitted to each photo: set method=NAME too"
            )
        return []
    name = _choice(overrides, "method")
    made = FittedMethod(
        name=name,
        fit=build(with_classical(node), "method"),
        seed=int(settings["seed"]),
        max_time=vocabulary.seconds(settings["max_time"], "max_time"),
        device_name=str(settings["device"]),
    )
    benchmark.planes(made.intake)
    made.fit.prepare(made.device)
    described = {"method": name, "settings": dict(node), "seed": made.seed, "max_time": made.max_time}
    return [Entry(made, described)]


def _trained(given: Any, loaded: Loaded, benchmark: Benchmark) -> tuple[float, float] | None:
    if given is not None:
        return as_range("trained", given)
    return trained_range(loaded.degradation, benchmark.severity) if benchmark.severity else None


def _patch(value: Any) -> tuple[int, int] | None:
    if value is None or value is False:
        return None
    sides = [value, value] if isinstance(value, int) else value
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise ValueError(
            f"local_converter must be auto, null or [height, width] of the training patch, got {value!r}"
        )
    return sides[0], sides[1]


def _metrics(value: Any, benchmark: Benchmark) -> list[str]:
    names = list(dict.fromkeys(["psnr", "ssim", *(str(name) for name in _listed(value))]))
    for name in names:
        unavailable(name)  # refuses an unknown one
    Scorer(protocol=benchmark.protocol, metrics=tuple(names))  # refuses one that the planes are not for
    return names


def _severities(value: Any, benchmark: Benchmark) -> list[float]:
    """The severities of a curve; each must be one that the benchmark takes."""
    listed = _listed(value)
    wrong = [item for item in listed if isinstance(item, bool) or not isinstance(item, int | float)]
    if wrong:
        raise ValueError(f"severities must be a list of numbers such as 15,25,50, got {wrong[0]!r}")
    for item in listed:
        at_severity(benchmark, item)
    return [float(item) for item in listed]


def _output(path: str | Path) -> Path:
    """The folder for the figures. Raises ValueError if it cannot be made or written to."""
    folder = Path(path).expanduser()
    check_writable(folder, setting="output", folder=True)
    return folder


def _processes(value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"processes must be a whole number >= 1 or null, got {value!r}")
    return value


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _choice(overrides: Sequence[str], group: str) -> str:
    """The option of a config group that the command line picked."""
    picked = [word.partition("=")[2] for word in overrides if re.fullmatch(rf"\+?{group}=.*", word)]
    return picked[-1] if picked else group


def _notes(loaded: Loaded | None) -> list[str]:
    if loaded is None or not (loaded.changed or loaded.said):
        return []
    if loaded.said:
        return [loaded.said]
    changed = " ".join(f"network.{name}={str(value).lower()}" for name, value in loaded.changed.items())
    return [f"the weights asked for {changed}"]


def _reference(benchmark: Benchmark) -> list[str]:
    """A note where the figures do not compare with clean photos."""
    noisy = isinstance(benchmark, HeldOut) and benchmark.reference == NOISY_REFERENCE
    return [f"all figures are {AGAINST_NOISY}"] if noisy else []
