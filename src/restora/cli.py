"""The `restora` command: a table of commands and the functions that run them.

A function's module is imported only when its command is run.
"""

import errno
import gc
import importlib
import os
import re
import sys
import warnings
from collections.abc import Sequence

COMMANDS = {
    "prepare": ("restora.apps.prepare:main", "download, verify and pack a data set"),
    "preview": ("restora.apps.preview:main", "show what a degradation does to a photo"),
    "networks": ("restora.apps.networks:main", "list the networks with their sizes"),
    "experiments": ("restora.apps.experiments:main", "list the experiments with their cost"),
    "train": ("restora.apps.train:main", "train one network, or sweep many with -m"),
    "sweep": ("restora.apps.sweep:main", "show the state of a sweep, stop it or resume it"),
    "bench": ("restora.apps.bench:main", "measure what an experiment will cost on this machine"),
    "evaluate": ("restora.apps.evaluate:main", "score weights, a run or a baseline by a published protocol"),
    "sync": ("restora.apps.sync:main", "send the runs that were kept offline to W&B"),
    "report": ("restora.apps.report:main", "compare runs: leaderboard and one self-contained page"),
    "export": ("restora.apps.export:main", "turn the best checkpoint of a run into a model folder"),
    "zoo": ("restora.apps.zoo:main", "list the models that come with restora; measure them again"),
    "restore": ("restora.apps.restore:main", "restore a photo or a folder of photos with a model folder"),
    "serve": ("restora.apps.serve:main", "restore photos through a web page and an HTTP API"),
}


def usage() -> str:
    rows = "\n".join(f"  {name:<11} {what}" for name, (_, what) in COMMANDS.items())
    return (
        f"usage: restora COMMAND [ARGUMENTS] [--plugin MODULE] [--config-dir DIR]\n\n{rows}\n\n"
        "restora COMMAND --help says what each takes. --plugin MODULE, or\n"
        "plugins=[MODULE], makes the parts of your own that MODULE registers known to the\n"
        "command; --config-dir DIR adds configuration."
    )


_COMPOSED = ("train", "bench", "evaluate", "preview", "prepare")
"""Commands whose arguments are overrides of a configuration with a key `plugins`."""


def _with_plugins(name: str, arguments: Sequence[str]) -> list[str]:
    """Imports the user's plugins and adds the user's configuration folders; returns the arguments that the
    command takes."""
    rest: list[str] = []
    plugins: list[str] = []
    folders: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in ("--config-dir", "-cd"):
            folders.append(next(words, ""))
        elif word.startswith("--config-dir="):
            folders.append(word.partition("=")[2])
        elif word == "--plugin":
            plugins.append(next(words, ""))
        elif word.startswith("--plugin="):
            plugins.append(word.partition("=")[2])
        elif word.startswith("plugins="):
            value = word.partition("=")[2].strip("[]")
            plugins += [module.strip(" '\"") for module in value.split(",") if module.strip()]
        else:
            rest.append(word)
    if not plugins and not folders:
        return rest
    from restora.registry import use_configuration, use_plugins

    use_configuration(folders)
    plugins = list(dict.fromkeys(plugins))
    use_plugins(plugins)
    return [*rest, f"plugins=[{','.join(plugins)}]"] if plugins and name in _COMPOSED else rest


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; a user's mistake ends in one message and exit status 2, not in a traceback."""
    if argv is None:  # a command's own process: its children import nothing from the working directory
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of the output closed it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        if argv is None:  # or Python searches all of torch for cycles as it ends, for up to two seconds
            gc.freeze()


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from restora import __version__

        print(f"restora {__version__}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        print(f"restora: there is no command {name!r}.{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it looks for a newer version online at import
    share_busy_cores()
    leave_pillows_warnings_out()
    if rest[:1] not in (["-h"], ["--help"]):
        leave_control_codes_out()
    module, _, function = COMMANDS[name][0].partition(":")
    run = getattr(importlib.import_module(module), function)
    try:
        return int(run(_with_plugins(name, rest)))
    except BrokenPipeError:
        raise
    except Exception as error:
        message = _explained(name, error) or (None if name in _DEVELOPING else _of_plugin(error))
        if os.environ.get("RESTORA_TRACEBACK") or message is None:
            raise
        from restora.redaction import redacted

        print(f"restora {name}: {redacted(message).translate(_CONTROL)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


_DEVELOPING = ("train", "bench")
"""Commands that show where in the user's own code an error is, by a traceback."""


def _of_plugin(error: Exception) -> str | None:
    """An error in the user's own code in one line, with its place; None if it is not from there."""
    from restora.registry import is_plugins

    place, trace = None, error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_plugins(str(trace.tb_frame.f_globals.get("__name__"))):
            place = f"{code.co_filename}, line {trace.tb_lineno}, in {code.co_qualname}"
        trace = trace.tb_next
    if place is None:
        return None
    first = str(error).strip().partition("\n")[0]
    return (
        f"{place}: {type(error).__name__}: {first}. If this code has changed since the training, take the "
        "version that the network was trained with (RESTORA_TRACEBACK=1 shows the traceback)"
    )


_CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
"""Control characters of terminals, except new lines and tabs."""


def leave_control_codes_out() -> None:
    """Makes rich remove control codes from names that come from files.

    By itself it removes the bell, but not the codes for colours, titles and the cursor. Note: rich has no
    function for this; a version without that table is left unchanged.
    """
    from rich import control

    getattr(control, "_CONTROL_STRIP_TRANSLATE", {}).update(_CONTROL)


def leave_pillows_warnings_out() -> None:
    """Pillow warns of damaged metadata with a line of its code; commands name the photo where it matters."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def share_busy_cores() -> None:
    """Makes OpenMP's threads wait for each other without long spinning, unless the user has set it.

    Spinning threads occupy the cores that the others need: beside two busy programs on two cores a NAFNet
    step took 9,168 ms, with a spin count of 1,000 it takes 238 (73 instead of 66 where nothing else runs).
    libgomp reads the variable once, when torch is loaded; child processes inherit it.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"
        os.environ["RESTORA_SPINCOUNT"] = "1000"  # so `bench` can say who set it


_LESS_MEMORY = {
    "train": "lower data.batch_size or data.patch_size, or set activation_checkpointing=true",
    "bench": "lower data.batch_size or data.patch_size, or set activation_checkpointing=true",
    "evaluate": "set tile=512, or a smaller one",
    "restore": "restore in smaller tiles, --tile 256",
    "serve": "serve with smaller tiles, --tile 256",
    "preview": "choose a smaller photo, or a weaker degradation: large kernels take the most",
}
"""What to do, by command, when memory runs out."""


def _explained(command: str, error: Exception) -> str | None:
    """The message for an error that the user can fix; None for a bug of this program."""
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        what = error.strerror or str(error) or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what += ": make room on this disk, or write to another one"
        return f"{where}{what}"
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
        return f"out of memory: {_LESS_MEMORY.get(command, 'close other programs, or choose smaller photos')}"
    return None


_OUT_OF_MEMORY = re.compile(
    r"OutOfMemory|out of memory|can't allocate memory|not enough memory", re.IGNORECASE
)


if __name__ == "__main__":
    sys.exit(main())
