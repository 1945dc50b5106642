"""Decoding from a folder that `musicvae export MODEL --onnx` wrote: NumPy and ONNX Runtime, no torch.

    decoder = OnnxDecoder("folder")
    rng = np.random.default_rng(1)
    tokens = decoder.decode(rng.standard_normal((4, decoder.latent_size)), decoder.uniforms(4, rng), temperature=0.5)

Shapes as in table_decoder.py; the tokens of the fp32 graphs are those of `MusicVAE.decode` but for near ties.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from musicvae.extras import missing
from musicvae.model.table_decoder import draw
from musicvae.shell import command


class OnnxDecoder:
    """The decoder of one model, in int8 unless told otherwise. ValueError for a folder without it."""

    def __init__(self, folder: str | Path, int8: bool = True, threads: int = 1):
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise ValueError(
                f"{folder} holds no config.json. Write the folder with: {command('export', 'MODEL', '--onnx', folder)}"
            )
        self.config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        sizes = self.config["model"]
        self.vocab_sizes, self.steps, self.bars = tuple(sizes["vocab_sizes"]), sizes["steps"], sizes["bars"]
        self.latent_size, self.silent = sizes["latent_size"], sizes["bar_start"] == "silent"
        groups = [[v] for v in self.vocab_sizes] if self.bars > 1 else [list(self.vocab_sizes)]
        kind = ".int8.onnx" if int8 else ".onnx"
        self.begin = _session(Path(folder) / f"begin{kind}", threads)
        self.decoders = [(_session(Path(folder) / f"step-{d}{kind}", threads), group) for d, group in enumerate(groups)]

    def uniforms(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Numbers (n, T, streams) in [0, 1) that `decode` turns into tokens."""
        return rng.random((n, self.steps, len(self.vocab_sizes)))

    def decode(self, z: np.ndarray, uniforms: np.ndarray | None = None, temperature: float = 1.0) -> np.ndarray:
        """z (B, Z), uniforms (B, T, streams) in [0, 1) -> tokens (B, T, streams); temperature 0 needs no uniforms.

        Raises ValueError for shapes that do not fit, and a temperature below 0 or infinite.
        """
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            raise ValueError(f"z has shape {z.shape}; the model needs (batch, {self.latent_size})")
        wanted = (len(z), self.steps, len(self.vocab_sizes))
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature is {temperature}; must be 0 (the most likely token) or more")
        if uniforms is None and temperature == 0:
            uniforms = np.zeros(wanted)
        if uniforms is None or uniforms.shape != wanted:
            found = "missing" if uniforms is None else f"of shape {uniforms.shape}"
            raise ValueError(f"uniforms are {found}; {len(z)} vectors need {wanted}")
        names = [output.name for output in self.begin.get_outputs()]
        begun, first, parts = dict(zip(names, self.begin.run(None, {"z": z}))), 0, []
        for d, (session, vocab_sizes) in enumerate(self.decoders):
            own = {name.removeprefix(f"{d}/"): rows for name, rows in begun.items() if name.startswith(f"{d}/")}
            part = uniforms[..., first : first + len(vocab_sizes)]
            parts.append(self._write(session, vocab_sizes, own, part, temperature))
            first += len(vocab_sizes)
        return np.concatenate(parts, axis=-1)

    def _write(
        self,
        session: Any,
        vocab_sizes: list[int],
        begun: dict[str, np.ndarray],
        uniforms: np.ndarray,
        temperature: float,
    ) -> np.ndarray:
        """What each bar begins with (B * U, ...), uniforms (B, T, K) -> tokens (B, T, K) of one decoder's K streams."""
        windows, bar, rounds = len(uniforms), self.steps // self.bars, [begun]
        if self.silent:  # all bars are rows of one round
            uniforms = uniforms.reshape(windows * self.bars, bar, len(vocab_sizes))
        else:  # a round for each bar
            rounds = [{name: rows[n :: self.bars] for name, rows in begun.items()} for n in range(self.bars)]
        tokens, names = np.empty(uniforms.shape, np.int64), [output.name for output in session.get_outputs()]
        heard = np.repeat([vocab_sizes], len(tokens), axis=0)  # the first step hears silence, the last row of a table
        for step in range(bar * len(rounds)):
            if step % bar == 0:
                feed = dict(rounds[step // bar])
            feed |= {f"token{k}": column for k, column in enumerate(heard.T)}
            found = dict(zip(names, session.run(None, feed)))
            heads = np.split(found.pop("logits"), np.cumsum(vocab_sizes)[:-1], axis=1)
            feed |= {name.removeprefix("next/"): state for name, state in found.items()}
            for k, (head, u) in enumerate(zip(heads, uniforms[:, step].T)):
                tokens[:, step, k] = draw(head.T, u, temperature)
            heard = tokens[:, step]
        return tokens.reshape(windows, self.steps, len(vocab_sizes))


def _session(path: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(missing("onnxruntime")) from None
    if not path.is_file():
        again = command("export", "MODEL", "--onnx", path.parent)
        raise ValueError(f"{path} is missing. Write the folder anew with: {again}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
