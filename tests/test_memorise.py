"""A hierarchical model can hold real music. For 16 bars and for trios this takes minutes: `tests/by_heart.py`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from by_heart import CORPORA, learn


@pytest.mark.skipif(not CORPORA.is_dir(), reason="needs the folder of corpora beside the checkout (../shared/corpora)")
def test_8_real_windows_of_melody_are_memorised(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    result = learn("melody", bars=4, steps=1500, rate=5e-3, units=96, out=tmp_path)
    assert result.windows.shape == (8, 64, 1) and len(np.unique(result.windows, axis=0)) == 8
    assert result.accuracy >= 0.99
    assert result.consistent
