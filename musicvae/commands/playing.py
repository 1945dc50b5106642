"""What musicians ask of a model: new phrases, rebuilt ones, songs as vectors and back, and what a file holds."""

from pathlib import Path
from typing import Annotated, Any, Optional

from tyro.conf import Positional, arg

from musicvae.commands.checks import check, check_song
from musicvae.commands.options import (
    Bar,
    Device,
    DrumsTrack,
    File,
    Json,
    MelodyTrack,
    Model,
    Number,
    Pad,
    Playing,
    Seed,
    Temperature,
    Track,
    about,
    bar_index,
    label,
    load,
    named,
    print_json,
    read,
    read_as,
    read_vectors,
    roles,
    through,
)
from musicvae.commands.output import Output, write

MOST_DECODED = 10_000  # files of one call


def sample(
    model: Model,
    /,
    output: Output,
    number: Number = 8,
    temperature: Temperature = 0.5,
    seed: Seed = 0,
    tempo: Annotated[float, arg(help="Beats a minute.")] = 120.0,
    rounds: Annotated[
        Optional[int],  # noqa: UP045 (see Track)
        arg(
            help="How often each vector is decoded and encoded again before it is played: more makes music more usual, "
            "and at last monotonous. By default as often as suits the model."
        ),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Write new music: MIDI files of one window each, from vectors drawn at random."""
    check(model, device, output, number=number, temperature=temperature, seed=seed, tempo=tempo, rounds=rounds)
    composer = load(model, device)
    songs = composer.sample(number, temperature, seed, tempo, rounds)
    write(
        {f"{label(composer)}-seed{seed}-{i:0{len(str(number))}d}": song for i, song in enumerate(songs, 1)},
        output,
    )


def reconstruct(
    model: Model,
    file: File,
    /,
    output: Output,
    playing: Playing,
) -> None:
    """Send a song through the latent space and back: what does the model keep of it?"""
    check_song(model, file, output, playing)
    composer = load(model, playing.device, encodes=True)
    song = read_as(composer, file, playing.melody, playing.drums, playing.track)
    with about(file):
        result = composer.reconstruct(song, **through(playing))
    windows = len(result.encoding.spans)
    cut = f"{windows} windows of {composer.bars} bars"
    left = f"; left out: {'; '.join(song.dropped)}" if song.dropped else ""
    print(f"{file}: {result.encoding.chosen}; {cut}; {result.accuracy:.1%} of the steps came back{left}")
    write({named(file, f"-{label(composer)}"): result.song}, output)


def encode(
    model: Model,
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...")],
    /,
    out: Annotated[
        Path,
        arg(
            metavar="FILE.npz",
            help="File to write: arrays mu, sigma (windows, Z), source, bar (of the first one it is 0).",
        ),
    ],
    melody: MelodyTrack = None,
    drums: DrumsTrack = None,
    track: Track = None,
    bar: Bar = 1,
    pad: Pad = False,
    overwrite: Annotated[bool, arg(help="Replace the file if it exists.")] = False,
    device: Device = "cpu",
) -> None:
    """Turn songs into vectors: mu and sigma of every window, in a NumPy file."""
    import numpy as np

    from musicvae.files import replacing

    if not files:
        raise ValueError("no file to encode; name one or more MIDI files")
    if not out.name or out.is_dir():
        raise ValueError(f"--out {out} is a folder; it must be a file such as z.npz")
    out = out if out.suffix == ".npz" else out.with_name(out.name + ".npz")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists already. Give another --out, or --overwrite to replace it")
    check(model, device, files=files, bars=[bar])
    composer = load(model, device, encodes=True)
    parts = []
    for file in files:
        song = read_as(composer, file, melody, drums, track)
        with about(file):
            parts.append(composer.encode(song, bar=bar_index(bar), pad=pad))
        print(f"{file}: {parts[-1].chosen}; {len(parts[-1].spans)} windows of {composer.bars} bars")
    arrays: dict[str, Any] = {
        "mu": np.concatenate([p.posterior.mu for p in parts]),
        "sigma": np.concatenate([p.posterior.sigma for p in parts]),
        "source": np.array([str(f) for f, p in zip(files, parts) for _ in p.spans]),
        "bar": np.array([s.bar for p in parts for s in p.spans]),
        "model": np.array(composer.name),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary, temporary.open("wb") as handle:
        np.savez(handle, **arrays)
    print(f"{out}: {len(arrays['mu'])} vectors of {composer.latent_size} numbers")


def decode(
    model: Model,
    vectors: Annotated[Positional[Path], arg(metavar="Z.npz", help="As written by encode, or with an array z (N, Z).")],
    /,
    output: Output,
    number: Annotated[
        int, arg(aliases=["-n"], help="How many times each vector is played (figure 8 of the paper).")
    ] = 1,
    temperature: Temperature = 0.5,
    seed: Seed = 0,
    tempo: Annotated[float, arg(help="Beats a minute.")] = 120.0,
    joined: Annotated[bool, arg(help="Write one more file that plays them in a row.")] = False,
    device: Device = "cpu",
) -> None:
    """Turn vectors back into music, each of them as often as asked."""
    import numpy as np

    from musicvae.shell import command

    if number < 1:
        raise ValueError(f"-n {number}; it must be at least 1")
    check(model, device, output, number=number, temperature=temperature, seed=seed, tempo=tempo)
    z, source = read_vectors(vectors)
    if number > 1 and len(z) * number > MOST_DECODED:
        raise ValueError(f"-n {number} of {len(z)} vectors; at most {MOST_DECODED:,} files are written at once")
    composer = load(model, device)
    if z.shape[1] != composer.latent_size and source:
        raise ValueError(
            f"{vectors}: vectors of {source}, which {composer.name} cannot play. Use: "
            + command("decode", source, vectors, "--out", "DIR")
        )
    if source not in ("", composer.name):
        print(f"{vectors}: vectors of {source}, played by {composer.name}; do both share one latent space?")
    with about(vectors):
        songs = composer.decode(np.repeat(z, number, axis=0), temperature, seed, tempo)
    names = [f"{label(composer)}-z{i:03d}-seed{seed}-{k}" for i in range(1, len(z) + 1) for k in range(1, number + 1)]
    write(dict(zip(names, songs)), output, row=named(vectors, f"-{label(composer)}") if joined else "", joined=joined)


def page(
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...", help="MIDI files, or folders of them.")],
    /,
    out: Annotated[Path, arg(metavar="FILE.html", help="Page to write.")],
    title: Annotated[str, arg(help="Its heading.")] = "Music",
    overwrite: Annotated[bool, arg(help="Replace the page if it exists.")] = False,
) -> None:
    """Write one HTML page that shows and plays MIDI files in a browser, offline."""
    from musicvae.render.page import save_page

    if not files:
        raise ValueError("no file to show; name one or more MIDI files, or folders of them")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists already. Give another --out, or --overwrite to replace it")
    groups: dict[str, list[Any]] = {}
    for given in files:
        below = (file for file in given.rglob("*") if file.suffix.lower() in (".mid", ".midi"))
        for file in sorted(below) if given.is_dir() else [given]:
            heading = str(file.parent.relative_to(given)) if given.is_dir() else "."
            groups.setdefault(heading.removeprefix("."), []).append((named(file, ""), read(file)))
    if not groups:
        raise ValueError(f"{', '.join(map(str, files))}: no .mid or .midi file there")
    save_page(out, groups, title)
    print(f"{out}: {sum(map(len, groups.values()))} files to hear; open it in a browser")


def inspect(
    file: File,
    /,
    melody: MelodyTrack = None,
    drums: DrumsTrack = None,
    track: Track = None,
    bar: Bar = 1,
    bars: Annotated[int, arg(help="How many bars to draw.")] = 4,
    json: Json = False,
) -> None:
    """Show what each track of a MIDI file would give, what stops it, and a piano roll."""
    from musicvae.music.inspection import inspect_song, print_inspection
    from musicvae.music.roles import find_track

    song, given = read(file), roles(melody, drums, track)
    with about(file):
        found = inspect_song(song, given)
        shown = [find_track(song, name) for name in (*given.melody, *given.drums)]
        if not json:
            print_inspection(song, found, shown[0] if shown else None, bar_index(bar), bars)
    if json:
        print_json({"file": str(file), **found})
