"""What attribute vectors do (section 5.5): the effect of each on its own attribute, and on all the others.

N windows   R vectors (rows)   A attributes (columns)   Z latent
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from musicvae.composer import Composer
from musicvae.music.attributes import attribute_units, measure

SIDE_EFFECTS = 2  # shown of each vector
WEAK = 0.25  # standard deviations that a vector moves its own attribute by, below which it is called weak


@dataclass(frozen=True)
class Effects:
    """Arrays with a column for each attribute; NaN where it never varies, or has a meaning in no window."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    windows: int
    amount: float
    temperature: float
    change: np.ndarray  # (R, A) in standard deviations: what the vector of the row does to the attribute
    difference: np.ndarray  # (R, A) the same in the attribute's own unit
    before: np.ndarray  # (A,) mean of the reconstructions, to which the vectors are added
    standard_deviation: np.ndarray  # (A,) of the attribute over real windows


def measure_effects(
    composer: Composer,
    tokens: np.ndarray,
    vectors: Mapping[str, np.ndarray],
    *,
    reference: np.ndarray | None = None,
    amount: float = 1.0,
    temperature: float = 0.0,
    seed: int = 0,
) -> Effects:
    """Adds each vector (Z,) to mu of each window (N, T, streams), and compares with the plain reconstruction.

    Means are over the windows in which an attribute has a meaning before and after; `reference` windows, by default
    the same, give the standard deviations. Raises ValueError for no windows.
    """
    if not len(tokens):
        raise ValueError("no windows to measure the effect of attribute vectors on")
    kind, mu = composer.representation, composer.encode_tokens(tokens).mu
    columns = tuple(attribute_units(kind))

    def played(shift: np.ndarray | float) -> np.ndarray:
        found = measure(composer.decode_tokens(mu + shift, temperature, seed), kind)
        return np.stack([found[name] for name in columns])  # (A, N)

    plain, real = played(0.0), measure(tokens if reference is None else reference, kind)
    deviation = np.array([_over_known(np.std, real[name]) for name in columns])
    changes = [played(np.float32(amount) * np.asarray(vector, np.float32)) - plain for vector in vectors.values()]
    difference = np.array([[_over_known(np.mean, c) for c in change] for change in changes]).reshape(-1, len(columns))
    change = np.where(deviation > 0, difference / np.where(deviation > 0, deviation, 1), np.nan)
    before = np.array([_over_known(np.mean, values) for values in plain])
    return Effects(tuple(vectors), columns, len(tokens), amount, temperature, change, difference, before, deviation)


def effect_records(effects: Effects) -> dict[str, dict[str, Any]]:
    """One record for each vector, ready for JSON: what it does to each attribute, in the order of the columns."""
    shared = {
        "amount": effects.amount,
        "temperature": effects.temperature,
        "windows": effects.windows,
        "before": _plain(effects.before),
        "standard_deviation": _plain(effects.standard_deviation),
    }
    rows = zip(effects.rows, effects.change, effects.difference)
    return {name: {**shared, "change": _plain(c), "difference": _plain(d)} for name, c, d in rows}


def attributes_table(report: dict[str, Any]) -> Table:
    """The report beside a file of vectors as a table of at most 80 columns; those of `without_effect` are left out."""
    columns, apart = report["columns"], without_effect(report)
    caption = (
        f"{report['scale']}. Effects: in standard deviations of the attribute over real windows, and in brackets its "
        "mean before and after."
    )
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    for heading in ("attribute, from and to", "+1 changes it by", "and most of all others"):
        table.add_column(heading, overflow="fold")
    for name, record in report["attributes"].items():
        if name not in apart:
            own, effect = own_column(name, columns), record["effect"]
            bounds = f"  {record['lacking']} to {record['having']}"
            table.add_row(f"{name}\n{bounds}", _own_effect(effect, own), _side_effects(effect, columns, own, "\n"))
    return table


def without_effect(report: dict[str, Any]) -> dict[str, str]:
    """The attributes whose own effect was not measured, or is weak: why, in words."""
    columns, found = report["columns"], {}
    for name, record in report["attributes"].items():
        own, effect = own_column(name, columns), record.get("effect")
        change = own_change(report, name)
        if effect is None:
            found[name] = "not measured"
        elif own is None:
            found[name] = f"known by examples alone; changes most {_side_effects(effect, columns, own)}"
        elif change is None or change < WEAK:
            found[name] = "weak" if change is None else f"weak, +1 changes it by {_own_effect(effect, own)}"
    return found


def own_change(report: dict[str, Any], name: str) -> float | None:
    """What +1 of an attribute changes it by, in standard deviations; None where that is not known."""
    effect, own = report["attributes"].get(name, {}).get("effect"), own_column(name, report["columns"])
    return effect["change"][own] if effect and own is not None else None


def own_column(name: str, columns: list[str]) -> int | None:
    """The column that a vector is about; None for an attribute that is known by examples only."""
    name = name.replace("busy", "note-density")
    return columns.index(name) if name in columns else None


def _own_effect(effect: dict[str, Any], own: int | None) -> str:
    if own is None:
        return "-"
    change, before, difference = (effect[key][own] for key in ("change", "before", "difference"))
    if change is None or before is None:
        return "-"
    return f"{change:+.2f} ({before:.2f} to {before + difference:.2f})"


def _side_effects(effect: dict[str, Any], columns: list[str], own: int | None, between: str = ", ") -> str:
    known = [(c, name) for i, (c, name) in enumerate(zip(effect["change"], columns)) if c is not None and i != own]
    largest = sorted(known, key=lambda pair: -abs(pair[0]))[:SIDE_EFFECTS]
    return between.join(f"{name} {change:+.2f}" for change, name in largest)


def _over_known(statistic: Any, values: np.ndarray) -> float:
    """Of the values that are not NaN; NaN without one."""
    known = values[~np.isnan(values)]
    return float(statistic(known)) if len(known) else float("nan")


def _plain(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(v) else float(f"{v:.4g}") for v in values.tolist()]
