"""What musicians ask of a model: new phrases, rebuilt ones, songs as vectors and back, and what a file holds."""

from pathlib import Path
from typing import Annotated, Any, Optional

from tyro.conf import Positional, arg

from musicvae.commands.options import (
    Bar,
    Device,
    File,
    Json,
    Model,
    Number,
    Pad,
    Playing,
    Seed,
    Temperature,
    Track,
    about,
    index,
    label,
    load,
    print_json,
    read,
    read_vectors,
    source_of,
    through,
)
from musicvae.commands.output import Output, write


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
    composer, song = load(model, playing.device, encodes=True), read(file)
    with about(file):
        result = composer.reconstruct(song, **through(playing))
    windows = len(result.encoding.spans)
    cut = f"{windows} windows of {composer.bars} bars"
    left = f"; left out: {'; '.join(song.dropped)}" if song.dropped else ""
    print(f"{file}: {result.encoding.chosen}; {cut}; {result.accuracy:.1%} of the steps came back{left}")
    write({f"{file.stem}-{label(composer)}": result.song}, output)


def encode(
    model: Model,
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...")],
    /,
    out: Annotated[Path, arg(metavar="FILE.npz", help="File to write: arrays mu, sigma (windows, Z), source, bar.")],
    track: Track = None,
    bar: Bar = 0,
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
    composer = load(model, device, encodes=True)
    parts = []
    for file in files:
        with about(file):
            parts.append(composer.encode(read(file), instrument=index(track), bar=bar, pad=pad))
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

    if number < 1:
        raise ValueError(f"-n {number}; it must be at least 1")
    composer, z = load(model, device), read_vectors(vectors)
    source = source_of(vectors)
    if z.shape[1] != composer.latent_size and source:
        raise ValueError(
            f"{vectors}: vectors of {source}, which {composer.name} cannot play. Use: musicvae decode {source}"
        )
    if source not in ("", composer.name):
        print(f"{vectors}: vectors of {source}, played by {composer.name}; do both share one latent space?")
    with about(vectors):
        songs = composer.decode(np.repeat(z, number, axis=0), temperature, seed, tempo)
    names = [f"{label(composer)}-z{i:03d}-seed{seed}-{k}" for i in range(1, len(z) + 1) for k in range(1, number + 1)]
    write(dict(zip(names, songs)), output, row=f"{vectors.stem}-{label(composer)}" if joined else "", joined=joined)


def inspect(
    file: File,
    /,
    track: Track = None,
    bar: Bar = 0,
    bars: Annotated[int, arg(help="How many bars to draw.")] = 4,
    json: Json = False,
) -> None:
    """Show what each track of a MIDI file would give, what stops it, and a piano roll."""
    from musicvae.music.inspection import inspect_song, print_inspection

    song = read(file)
    found = inspect_song(song)
    if json:
        print_json({"file": str(file), **found})
    else:
        with about(file):
            print_inspection(song, found, track, bar, bars)
