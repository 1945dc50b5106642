"""The command line: which words call which function, help, and mistakes in one line."""

import difflib
import sys
from collections.abc import Callable

import tyro

import musicvae
from musicvae.commands.attributes import apply, learn, show, swap, sweep
from musicvae.commands.datasets import build, info
from musicvae.commands.exchange import export_model, import_model
from musicvae.commands.latent import average, grid, interpolate, vary
from musicvae.commands.output import gathered, spelled_out
from musicvae.commands.playing import decode, encode, inspect, reconstruct, sample
from musicvae.commands.training import evaluate, models, train
from musicvae.extras import EXTRAS, missing

COMMANDS: dict[str, Callable[..., None]] = {
    "sample": sample,
    "reconstruct": reconstruct,
    "encode": encode,
    "decode": decode,
    "interpolate": interpolate,
    "average": average,
    "vary": vary,
    "grid": grid,
    "attribute learn": learn,
    "attribute list": show,
    "attribute apply": apply,
    "attribute swap": swap,
    "attribute sweep": sweep,
    "inspect": inspect,
    "dataset build": build,
    "dataset info": info,
    "train": train,
    "evaluate": evaluate,
    "models": models,
    "import": import_model,
    "export": export_model,
}


def main() -> None:
    """Entry point: `musicvae COMMAND ...`. Errors that a user can mend are one line; the exit code is then 1."""
    words = sys.argv[1:]
    name = " ".join(words[: 2 if words[:1] and words[0] in families() else 1])
    if name not in COMMANDS:
        other(words)
        return
    try:
        tyro.cli(
            COMMANDS[name],
            args=gathered(spelled_out(words[len(name.split()) :])),
            prog=f"musicvae {name}",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        print(f"musicvae {name}: {missing(str(error.name))}", file=sys.stderr)
        sys.exit(1)
    except (ValueError, OSError) as error:
        print(f"musicvae {name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"musicvae {name}: interrupted", file=sys.stderr)
        sys.exit(130)


def families() -> set[str]:
    """The first words of the commands of two words, such as dataset."""
    return {name.split()[0] for name in COMMANDS if " " in name}


def other(words: list[str]) -> None:
    """Everything that is no command: help, version, mistakes."""
    if words == ["--version"]:
        print(f"musicvae {musicvae.__version__}")
        return
    lines = [f"  {name:15} {(function.__doc__ or '').splitlines()[0]}" for name, function in COMMANDS.items()]
    usage = "\n".join(
        ["Music you can hold as a vector.", "", "usage: musicvae COMMAND ... (each has --help)", "", *lines]
    )
    asked = not words or words[0] in ("--help", "-h", "help")
    if asked or (words[0] in families() and words[1:] in ([], ["--help"], ["-h"])):
        print(usage)
        return
    tried = " ".join(words[: 2 if words[0] in families() else 1])
    close = difflib.get_close_matches(tried, COMMANDS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    print(f"musicvae: no command {tried!r}.{hint} See: musicvae --help", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
