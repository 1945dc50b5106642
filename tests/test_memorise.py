"""A hierarchical model can hold real music: it learns 8 windows of four bars by heart, through z alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from musicvae.model.objective import TrainingConfig
from musicvae.model.training import train
from musicvae.model.vae import ModelConfig
from musicvae.music.midi import MidiError, Song
from musicvae.music.representation import representation
from musicvae.music.windows import find_windows

CORPORA = Path(__file__).parent.parent.parent / "shared" / "corpora"


@pytest.mark.skipif(not CORPORA.is_dir(), reason="needs the folder of corpora beside the checkout (../shared/corpora)")
def test_8_real_windows_of_melody_are_memorised(tmp_path: Path) -> None:
    kind, bars = representation("melody"), 4
    windows: list[np.ndarray] = []
    for path in sorted((CORPORA / "freedoom").glob("*.mid")):
        try:
            found = find_windows([Song.read(path)], kind, bars).tokens
        except MidiError:
            continue
        windows += [found[0]] if len(found) else []
        if len(windows) == 8:
            break
    data = np.stack(windows).astype(np.int64)
    assert data.shape == (8, 64, 1) and len(np.unique(data, axis=0)) == 8

    sizes = {"latent_size": 32, "encoder_units": 64, "encoder_layers": 1, "conductor_units": 96, "condition_size": 64}
    model_config = ModelConfig(kind.vocab_sizes, 64, bars, decoder_units=96, **sizes)
    config = TrainingConfig(steps=900, batch_size=8, learning_rate=5e-3, beta=1e-3, free_bits=256, checkpoint_every=0)
    torch.set_num_threads(1)
    model = train(model_config, config, data, None, tmp_path).model
    tokens = torch.from_numpy(data)
    with torch.no_grad():
        mu = model.encode(tokens).mean
        written = model.decode(mu, temperature=0)
        forced = model.predict_steps(written, mu)
    assert (written == tokens).float().mean() >= 0.99
    assert (forced[0].argmax(-1) == written[..., 0]).all()
