"""`restora serve`: a web page and an HTTP API that restore photos with the named models.

Needs the packages of `restora[serve]`. Listens on this machine only, unless `--host` names another address.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence

from restora.apps.parser import WHICH_NETWORK, Parser
from restora.vocabulary import TASKS


def parser() -> argparse.ArgumentParser:
    """The command line of `restora serve`."""
    made = Parser(
        prog="restora serve",
        description="A web page that restores photos, and an HTTP API that does the same for programs "
        "(its documentation is at /docs). Stops on Ctrl-C or SIGTERM when the photos it has are done.",
    )
    made.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="*",
        help="a model folder, a run, a checkpoint, a weights file or zoo:NAME; several are offered (default: "
        "those of the zoo for everyday colour photos)",
    )
    made.add_argument(
        "--task", metavar="TASK", help=f"task of weights that do not record it: {', '.join(TASKS)}"
    )
    made.add_argument("--network", metavar="NAME", help=WHICH_NETWORK)
    made.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is all (default: 127.0.0.1)"
    )
    made.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: 8000)")
    made.add_argument(
        "--token",
        help="token that clients must send as Authorization: Bearer TOKEN; also read from RESTORA_TOKEN",
    )
    made.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="origin of another site whose pages may use the API",
    )
    made.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    made.add_argument(
        "--precision",
        default="float32",
        metavar="WORD",
        help="float32, bf16, float16, or auto: bf16 where the device multiplies in it (default: float32)",
    )
    made.add_argument(
        "--engine",
        default="auto",
        help="auto, torch, or on a CPU onnxruntime, openvino (default: auto)",
    )
    made.add_argument(
        "--tile",
        type=int,
        default=544,
        metavar="PIXELS",
        help="side of a tile; jobs can be cancelled between tiles (default: 544)",
    )
    limits = made.add_argument_group("limits")
    limits.add_argument(
        "--queue",
        type=int,
        default=16,
        metavar="PHOTOS",
        help="photos that may wait; more get status 429 (default: 16)",
    )
    limits.add_argument(
        "--max-megabytes", type=float, default=100, metavar="MB", help="size limit of a file (default: 100)"
    )
    limits.add_argument(
        "--max-megapixels",
        type=float,
        default=100,
        metavar="MP",
        help="limit of a photo and of its result (default: 100)",
    )
    limits.add_argument(
        "--max-seconds",
        type=float,
        default=600,
        metavar="S",
        help="computing time for one photo (default: 600)",
    )
    limits.add_argument(
        "--keep", type=float, default=900, metavar="S", help="how long results can be fetched (default: 900)"
    )
    limits.add_argument(
        "--grace",
        type=float,
        default=60,
        metavar="S",
        help="time to finish running photos when stopping (default: 60)",
    )
    made.add_argument(
        "--batch",
        type=int,
        metavar="PHOTOS",
        help="small photos of one size computed together (default: 4, on a CPU 1)",
    )
    made.add_argument("--verbose", action="store_true", help="print every request")
    return made


def _check(options: argparse.Namespace) -> None:
    """Raises ValueError for numbers out of range, an empty token and origins that no browser sends."""
    for flag in ("--max-megabytes", "--max-megapixels", "--max-seconds", "--keep"):
        value = getattr(options, flag.removeprefix("--").replace("-", "_"))
        if not 0 < value < math.inf:
            raise ValueError(f"{flag} must be a number above 0, got {value:g}")
    for flag, least in (("--queue", 1), ("--batch", 1), ("--tile", 0), ("--port", 0)):
        count = getattr(options, flag.removeprefix("--"))
        if count is not None and count < least:
            raise ValueError(f"{flag} must be a whole number of {least} or more, got {count}")
    if not 0 <= options.grace < math.inf:
        raise ValueError(f"--grace must be a number of seconds from 0, got {options.grace:g}")
    if options.token is not None and not options.token.strip():
        raise ValueError("--token is empty: give a token, or leave --token out to let in everyone")
    for where, token in (("--token", options.token), ("RESTORA_TOKEN", os.environ.get("RESTORA_TOKEN"))):
        if token and not re.fullmatch(r"[!-~]([ -~]*[!-~])?", token):
            raise ValueError(
                f"{where} has spaces at an end, or characters that are not ASCII, which no client can send: "
                "use letters, digits and signs"
            )
    for origin in options.cors:
        if not re.fullmatch(r"https?://[^/\s]+", origin):
            raise ValueError(f"--cors takes an origin such as https://photos.example.org, got {origin}")


def main(argv: Sequence[str]) -> int:
    """0 after a signal. Raises ValueError for sources or addresses that cannot be used."""
    options = parser().parse_args(argv)
    _check(options)
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'restora[serve]'") from error

    from restora.allocator import keep_freed_memory

    keep_freed_memory()
    from restora.serving import open_files
    from restora.serving.app import build_app
    from restora.serving.guard import LOOPBACK
    from restora.serving.limits import Limits
    from restora.serving.models import load_models
    from restora.serving.server import address, listen, run
    from restora.serving.service import Service
    from restora.zoo.index import offered

    limits = Limits(
        megabytes=options.max_megabytes,
        megapixels=options.max_megapixels,
        seconds=options.max_seconds,
        queue=options.queue,
        keep_seconds=options.keep,
        kept_jobs=min(Limits.kept_jobs, open_files.kept_jobs(open_files.allowed())),
    )
    models = load_models(
        options.sources or offered(),
        device=options.device,
        precision=options.precision,
        tile=options.tile,
        engine=options.engine,
        task=options.task,
        network=options.network,
    )
    for model in models.values():
        if model.restorer.said:
            print(model.restorer.said)
        if model.description.task == "unknown":
            print(f"{model.name}: its task is not known: set it with --task TASK")
    on_cpu = all(model.restorer.device.type == "cpu" for model in models.values())
    batch = (1 if on_cpu else 4) if options.batch is None else options.batch
    service = Service(models=models, limits=limits, batch=batch)
    local = options.host in LOOPBACK
    token = options.token or os.environ.get("RESTORA_TOKEN") or None
    bound = listen(options.host, options.port)
    app = build_app(service, token=token, local=local, origins=options.cors)
    print(f"{len(models)} model{'s' * (len(models) > 1)}: {', '.join(models)}", flush=True)
    print(f"page: {address(bound)}", flush=True)
    if not local and token is None:
        print(
            "restora serve: anyone who reaches this address can use it: --token TOKEN requires a token",
            file=sys.stderr,
        )
    run(app, service, bound, grace=options.grace, verbose=options.verbose)
    return 0
