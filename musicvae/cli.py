"""The command line: which words call which function, help, and mistakes in one line."""

import codecs
import difflib
import os
import sys
import traceback
from collections.abc import Callable

import tyro

import musicvae
from musicvae.commands.attributes import apply, learn, show, swap, sweep
from musicvae.commands.datasets import build, info
from musicvae.commands.exchange import export_model, import_model
from musicvae.commands.latent import average, grid, interpolate, vary
from musicvae.commands.output import gathered, spelled_out
from musicvae.commands.playing import decode, encode, inspect, page, reconstruct, sample
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
    "page": page,
    "dataset build": build,
    "dataset info": info,
    "train": train,
    "evaluate": evaluate,
    "models": models,
    "import": import_model,
    "export": export_model,
}


PLAIN = {
    "█": "#",
    "▬": "=",
    "│": "|",
    "·": ".",
    "─": "-",
    "–": "-",
    "…": "...",
    "≤": "<=",
    "≥": ">=",
    "±": "+-",
    "’": "'",
}
TRACEBACK = "MUSICVAE_TRACEBACK"  # set in the environment, it shows where an unexpected error comes from


def main() -> None:
    """Entry point: `musicvae COMMAND ...`. Whatever fails is one line on standard error and an exit code.

    The codes: 1 for an error, 2 for usage, 130 for Ctrl-C. Where nobody reads the output any more, it ends without a
    word.
    """
    words = sys.argv[1:]
    name = " ".join(words[: 2 if words[:1] and words[0] in families() else 1])
    printable()
    try:
        run(name, words)
        sys.stdout.flush()
    except BaseException as error:
        end(f"musicvae {name}" if name in COMMANDS else "musicvae", error)


def run(name: str, words: list[str]) -> None:
    if name not in COMMANDS:
        other(words)
        return
    tyro.cli(
        COMMANDS[name],
        args=gathered(spelled_out(words[len(name.split()) :])),
        prog=f"musicvae {name}",
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def end(command: str, error: BaseException) -> None:
    """Says in one line why a command failed, and exits."""
    code = 1
    try:
        sys.stdout.flush()
    except OSError as at_the_end:
        error = at_the_end if isinstance(error, SystemExit) else error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try again when it exits
    if isinstance(error, SystemExit):
        raise error
    if isinstance(error, KeyboardInterrupt):
        line, code = "interrupted", 130
    elif isinstance(error, BrokenPipeError):
        sys.exit(code)
    else:
        line = reason(error)
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    print(f"{command}: {' '.join(line.split())}", file=sys.stderr)
    sys.exit(code)


def reason(error: BaseException) -> str:
    """What to tell a user of an error: the message of those that a user can mend, the kind of all others."""
    text = str(error)
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        return f"not enough memory{f' ({text.splitlines()[0]})' if text else ''}. Ask for less at once"
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRAS:
        return missing(str(error.name))
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:80]!r} cannot be written as {error.encoding}. Rename it"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'standard output'}: {error.strerror}"
    if isinstance(error, (ValueError, OSError)):
        return text
    return f"unexpected {type(error).__name__} ({text}). Please report it with what {TRACEBACK}=1 shows"


def printable() -> None:
    """Lets every character be printed whatever the encoding of the output: as a plain one, or escaped as in JSON."""
    codecs.register_error("plain", plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plain")


def plain(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    try:
        return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in found), error.end
    except UnicodeError:
        return "?" * len(found), error.end


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
