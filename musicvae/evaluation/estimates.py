"""Means and shares with the uncertainty that the choice of songs brings: a bootstrap over groups of songs.

N observations   G groups   F figures   R resamples
"""

import numpy as np

from musicvae.evaluation.reconstruction import INTERVAL, Estimate, bootstrap

RESAMPLES = 1000


def estimate_means(values: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[Estimate]:
    """values (N, F), each of a group (N,) -> the mean of each figure, with a 95 % interval over groups."""
    return estimate_ratios(values, np.ones(values.shape), groups, seed)


def estimate_ratios(above: np.ndarray, below: np.ndarray, groups: np.ndarray, seed: int = 0) -> list[Estimate]:
    """above, below (N, F) -> the sum above over the sum below, of each figure; nan where there is nothing below."""
    names, group = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *above.shape[1:], 2))
    np.add.at(sums, group, np.stack([above, below], axis=-1))
    value = _ratio(sums.sum(0))
    if len(names) < 2:
        return [Estimate(float(v), None, None) for v in value]
    resampled = _ratio(bootstrap(sums, RESAMPLES, seed))
    return [_estimate(v, column[~np.isnan(column)]) for v, column in zip(value, resampled.T)]


def _estimate(value: float, resampled: np.ndarray) -> Estimate:
    low, high = np.quantile(resampled, INTERVAL) if len(resampled) else (None, None)
    return Estimate(float(value), None if low is None else float(low), None if high is None else float(high))


def _ratio(sums: np.ndarray) -> np.ndarray:
    """sums (..., 2) -> (...)."""
    return np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] > 0)
