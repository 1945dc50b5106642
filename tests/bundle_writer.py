"""The tests' own half of the exchange: models of the original's families with random weights, written in both formats,
and what they compute, in NumPy. Nothing here is shared with the reader: names, layouts and checksums are spelt out.

By hand, `python tests/bundle_writer.py FAMILY FOLDER [bundle|js]` writes a model of full width.
"""

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Tensors = dict[str, np.ndarray]


class Sizes(NamedTuple):
    inputs: int  # of the encoder
    outputs: tuple[int, ...]  # of each decoder
    encoder: tuple[int, int]  # layers, units
    decoder: tuple[int, int]
    z: int
    conductor: tuple[int, int] = (0, 0)


FULL = {
    "cat-mel_2bar_small": Sizes(90, (90,), (1, 512), (2, 256), 256),
    "cat-mel_2bar_big": Sizes(90, (90,), (1, 2048), (3, 2048), 512),
    "cat-drums_2bar_small": Sizes(10, (512,), (1, 512), (2, 256), 256),
    "cat-drums_2bar_big": Sizes(10, (512,), (1, 2048), (3, 2048), 512),
    "flat-mel_16bar": Sizes(90, (90,), (2, 2048), (3, 2048), 512),
    "hierdec-mel_16bar": Sizes(90, (90,), (2, 2048), (2, 1024), 512, (2, 1024)),
    "flat-trio_16bar": Sizes(692, (692,), (2, 2048), (3, 2048), 512),
    "hierdec-trio_16bar": Sizes(692, (90, 90, 512), (2, 2048), (2, 1024), 512, (2, 1024)),
}
TINY = {  # as many layers, few units, no two widths alike
    name: size._replace(
        encoder=(size.encoder[0], 6),
        decoder=(size.decoder[0], 5),
        z=4,
        conductor=(size.conductor[0], 7 if size.conductor[0] else 0),
    )
    for name, size in FULL.items()
}


def random_tensors(sizes: Sizes, seed: int = 0, scale: float = 0.5) -> Tensors:
    """The variables of a model, by the names of the original."""
    rng, tensors = np.random.default_rng(seed), {}

    def add(name: str, rows: int, columns: int) -> None:
        tensors[f"{name}/kernel"] = rng.standard_normal((rows, columns), np.float32) * np.float32(scale)
        tensors[f"{name}/bias"] = rng.standard_normal(columns, np.float32) * np.float32(scale)

    def add_decoder(prefix: str, depth: int, told: int) -> None:
        layers, units = sizes.decoder
        add(f"{prefix}/z_to_initial_state", told, 2 * layers * units)
        for i in range(layers):
            add(f"{prefix}/multi_rnn_cell/cell_{i}/lstm_cell", (units if i else depth + told) + units, 4 * units)
        add(f"{prefix}/output_projection", units, depth)

    layers, units = sizes.encoder
    for i in range(layers):
        for way in ("fw", "bw"):
            name = f"encoder/cell_{i}/bidirectional_rnn/{way}/multi_rnn_cell/cell_0/lstm_cell"
            add(name, (2 * units if i else sizes.inputs) + units, 4 * units)
    add("encoder/mu", 2 * units, sizes.z)
    add("encoder/sigma", 2 * units, sizes.z)
    layers, units = sizes.conductor
    if not layers:
        add_decoder("decoder", sizes.outputs[0], sizes.z)
        return tensors
    add("decoder/hierarchical_level_0/initial_state", sizes.z, 2 * layers * units)
    for i in range(layers):
        add(f"decoder/hierarchical_level_0/cell_{i}/lstm_cell", (units if i else 1) + units, 4 * units)
    if len(sizes.outputs) == 1:
        add_decoder("core_decoder/decoder", sizes.outputs[0], units)
    else:
        for i, depth in enumerate(sizes.outputs):
            add_decoder(f"core_decoder/core_decoder_{i}/decoder", depth, units)
    return tensors


# --- what such a model computes ------------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def dense(tensors: Tensors, name: str, x: np.ndarray) -> np.ndarray:
    return x @ tensors[f"{name}/kernel"].astype(float) + tensors[f"{name}/bias"]


def cell(tensors: Tensors, name: str, x: np.ndarray, c: np.ndarray, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    i, j, f, o = np.split(dense(tensors, name, np.concatenate([x, h], axis=-1)), 4, axis=-1)
    c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(j)
    return c, sigmoid(o) * np.tanh(c)


def posterior(tensors: Tensors, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x (B, T, inputs) -> mu, sigma (B, Z)."""
    layer, last = 0, [np.zeros(0), np.zeros(0)]
    while f"encoder/cell_{layer}/bidirectional_rnn/fw/multi_rnn_cell/cell_0/lstm_cell/bias" in tensors:
        outputs = []
        for w, way in enumerate(("fw", "bw")):
            name = f"encoder/cell_{layer}/bidirectional_rnn/{way}/multi_rnn_cell/cell_0/lstm_cell"
            c = h = np.zeros((len(x), len(tensors[f"{name}/bias"]) // 4))
            steps = []
            for heard in x.swapaxes(0, 1)[:: -1 if w else 1]:
                c, h = cell(tensors, name, heard, c, h)
                steps.append(h)
            last[w] = h
            outputs.append(np.stack(steps[:: -1 if w else 1], axis=1))
        x, layer = np.concatenate(outputs, axis=-1), layer + 1
    both = np.concatenate(last, axis=-1)
    return dense(tensors, "encoder/mu", both), np.log1p(np.exp(dense(tensors, "encoder/sigma", both)))


def start(tensors: Tensors, name: str, told: np.ndarray, cells: list[str]) -> list[list[np.ndarray]]:
    parts = np.split(np.tanh(dense(tensors, name, told)), 2 * len(cells), axis=-1)  # c0, h0, c1, h1, ...
    return [[parts[2 * i], parts[2 * i + 1]] for i in range(len(cells))]


def cells(tensors: Tensors, prefix: str) -> list[str]:
    names = [f"{prefix}/cell_{i}/lstm_cell" for i in range(9)]
    return [name for name in names if f"{name}/bias" in tensors]


def step(tensors: Tensors, names: list[str], states: list[list[np.ndarray]], x: np.ndarray) -> np.ndarray:
    for name, state in zip(names, states):
        state[0], state[1] = cell(tensors, name, x, *state)
        x = state[1]
    return x


def write_steps(tensors: Tensors, prefix: str, told: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """told (B, C), heard (B, S, K): the token before each step -> logits (B, S, K)."""
    names = cells(tensors, f"{prefix}/multi_rnn_cell")
    states = start(tensors, f"{prefix}/z_to_initial_state", told, names)
    hidden = [step(tensors, names, states, np.concatenate([x, told], axis=-1)) for x in heard.swapaxes(0, 1)]
    return dense(tensors, f"{prefix}/output_projection", np.stack(hidden, axis=1))


def logits(tensors: Tensors, x: np.ndarray, z: np.ndarray, bars: int) -> np.ndarray:
    """Teacher forcing: x (B, T, K) one-hot, all streams side by side, z (B, Z) -> (B, T, K)."""
    heard = np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)
    if bars == 1:
        return write_steps(tensors, "decoder", z, heard)
    names = cells(tensors, "decoder/hierarchical_level_0")
    states = start(tensors, "decoder/hierarchical_level_0/initial_state", z, names)
    apart = "core_decoder/decoder/output_projection/bias" not in tensors
    prefixes = [f"core_decoder/core_decoder_{i}/decoder" for i in range(3)] if apart else ["core_decoder/decoder"]
    ends = np.cumsum([len(tensors[f"{prefix}/output_projection/bias"]) for prefix in prefixes])[:-1]
    written = []
    for bar in np.split(heard, bars, axis=1):
        told = step(tensors, names, states, np.zeros((len(z), 1)))
        parts = [write_steps(tensors, p, told, s) for p, s in zip(prefixes, np.split(bar, ends, axis=-1))]
        written.append(np.concatenate(parts, axis=-1))
    return np.concatenate(written, axis=1)


# --- TensorFlow's format -------------------------------------------------------------------------------------------

TYPES = {"float64": 2, "float32": 1, "int32": 3, "int64": 9, "float16": 19}
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)


def crc32c(data: bytes) -> int:
    """A byte at a time, as the standard says."""
    if len(data) > 2**24:  # full width, by hand
        import google_crc32c

        return google_crc32c.value(data)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value) if value else b""


def entry(dtype: int, shape: tuple[int, ...], shard: int, offset: int, size: int, crc: int) -> bytes:
    """A BundleEntryProto."""
    dimensions = b"".join(field(2, field(1, n)) for n in shape)
    head = field(1, dtype) + field(2, dimensions) + field(3, shard) + field(4, offset) + field(5, size)
    return head + varint(6 << 3 | 5) + struct.pack("<I", crc)


def block(rows: list[tuple[bytes, bytes]]) -> bytes:
    """Keys and values of a table, each key without what it shares with the one before; every 16th is whole."""
    out, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(rows):
        shared = 0
        if i % 16 == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(out) + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def table(
    rows: list[tuple[bytes, bytes]], per_block: int = 7, kind: int = 0, spoil: Callable[[bytes], bytes] = bytes
) -> bytes:
    """An index file. spoil changes a block of entries before its checksum is taken: damage that no checksum shows."""
    out, index = bytearray(), []

    def write(data: bytes) -> bytes:
        handle = varint(len(out)) + varint(len(data))
        out.extend(data + bytes([kind]) + struct.pack("<I", mask(crc32c(data + bytes([kind])))))
        return handle

    for at in range(0, len(rows), per_block):
        part = rows[at : at + per_block]
        index.append((part[-1][0] + b"~" if at + per_block < len(rows) else part[-1][0], write(spoil(block(part)))))
    handles = write(block([])) + write(block(index))
    return bytes(out) + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def write_bundle(prefix: Path, tensors: Tensors, shards: int = 1, header: bytes = b"", **options: object) -> None:
    """NAME.index and NAME.data-...: the tensors in the order of their names, over so many files."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    rows = [(b"", header or field(1, shards) + field(3, field(1, 1)))]
    names, ends = sorted(tensors), [0] * shards
    files = [open(prefix.with_name(f"{prefix.name}.data-{i:05d}-of-{shards:05d}"), "wb") for i in range(shards)]
    for i, name in enumerate(names):
        shard, data = i * shards // len(names), np.asarray(tensors[name]).tobytes()
        kind = TYPES[tensors[name].dtype.name]
        value = entry(kind, tensors[name].shape, shard, ends[shard], len(data), mask(crc32c(data)))
        rows.append((name.encode(), value))
        files[shard].write(data)
        ends[shard] += len(data)
    for file in files:
        file.close()
    prefix.with_name(prefix.name + ".index").write_bytes(table(rows, **options))  # type: ignore[arg-type]


# --- magenta.js's format -------------------------------------------------------------------------------------------


def write_js(
    folder: Path, tensors: Tensors, config: dict | None = None, shard_size: int = 4 * 2**20, bits: int = 0
) -> Tensors:
    """A magenta.js folder, whose shards are cut without regard to tensors; bits 8 or 16 quantise them.

    Returns the tensors as a reader should find them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, found, pending, shards = [], {}, bytearray(), []
    for name, tensor in tensors.items():
        weight = {"name": name, "shape": list(tensor.shape), "dtype": "float32"}
        stored = tensor
        found[name] = tensor
        if bits:
            low, high = float(tensor.min()), float(tensor.max())
            scale = (high - low) / (2**bits - 1) or 1.0
            stored = np.round((tensor.astype(float) - low) / scale).astype(f"uint{bits}")
            weight["quantization"] = {"min": low, "scale": scale, "dtype": f"uint{bits}"}
            found[name] = (stored * scale + low).astype(np.float32)
        pending += stored.tobytes()
        weights.append(weight)
        while len(pending) >= shard_size:
            shards.append(f"group1-shard{len(shards) + 1}")
            (folder / shards[-1]).write_bytes(pending[:shard_size])
            del pending[:shard_size]
    shards.append(f"group1-shard{len(shards) + 1}")
    (folder / shards[-1]).write_bytes(pending)
    (folder / "weights_manifest.json").write_text(json.dumps([{"paths": shards, "weights": weights}]))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return found


if __name__ == "__main__":
    family, folder, *form = sys.argv[1:]
    made = random_tensors(FULL[family], scale=0.02)
    if form == ["js"]:
        write_js(Path(folder), made)
    else:
        write_bundle(Path(folder) / "model.ckpt", made)
    print(f"{folder}: {sum(t.nbytes for t in made.values()) / 1e6:,.0f} MB of {family}")
