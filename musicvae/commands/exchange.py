"""Models from elsewhere and for elsewhere: the original's checkpoints, and pages with magenta.js."""

import glob
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from musicvae.commands.checks import check
from musicvae.commands.options import Model, Overwrite


def import_model(
    path: Annotated[Positional[Path], arg(metavar="PATH")],
    /,
    out: Annotated[Path, arg(metavar="RUN", help="Folder of the run to make; must be new or empty.")],
    bars: Annotated[int | None, arg(help="Bars of a window, where neither names nor sizes tell.")] = None,
    drum_map: Annotated[
        Literal["current", "2018"] | None, arg(help="Of drums and trios; by default what Magenta published: 2018.")
    ] = None,
    licence: Annotated[str, arg(help="For the model card.")] = "Apache-2.0 (Google, Magenta project)",
) -> None:
    """Turn a checkpoint of the original MusicVAE into a run: TensorFlow or magenta.js, also in an archive.

    PATH is a folder, the prefix NAME of NAME.index, or a .tar, .tar.gz or .zip. TensorFlow is not needed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already. Give another --out, for a new run")
    if not path.is_dir() and not any(path.absolute().parent.glob(f"{glob.escape(path.name)}*")):
        raise ValueError(f"{path}: there is no such file or folder, and no checkpoint whose files begin so")
    if bars is not None and bars < 1:
        raise ValueError(f"--bars {bars} makes windows of {16 * bars} steps (as given); it must be at least 1")
    from musicvae.exchange import import_checkpoint
    from musicvae.shell import command

    for line in import_checkpoint(path, out, bars, drum_map, licence).lines:
        print(line)
    print(f"{out}: ready. Hear it: {command('sample', out, '--out', 'DIR')}")


def export_model(
    model: Model,
    /,
    magenta_js: Annotated[
        Path | None, arg(metavar="DIR", help="Folder to write that magenta.js loads in a page.")
    ] = None,
    onnx: Annotated[Path | None, arg(metavar="DIR", help="Folder to write that ONNX Runtime decodes from.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a model in a form that other programs load: --magenta-js or --onnx."""
    if not magenta_js and not onnx:
        raise ValueError("no form given; name a folder for one: --magenta-js DIR or --onnx DIR")
    from musicvae.limits import check_free

    for target, option in ((magenta_js, "--magenta-js"), (onnx, "--onnx")):
        if target:
            check_free(target, option, overwrite)
    check(model)
    from musicvae.exchange import export_magenta_js, export_onnx_runtime

    if magenta_js:
        for line in export_magenta_js(model, magenta_js, overwrite):
            print(line)
        print(f"{magenta_js}: written. In a page: new music_vae.MusicVAE('URL of this folder')")
    if onnx:
        for line in export_onnx_runtime(model, onnx, overwrite):
            print(line)
        print(f"{onnx}: written. In Python: musicvae.model.onnx_decoder.OnnxDecoder({str(onnx)!r})")
