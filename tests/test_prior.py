"""The flow behind a model's prior, of z or of bars: invertible, with the determinant of the chain rule, learning."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from musicvae.composer import Composer, load
from musicvae.model.bar_prior import LAGS, BarPrior
from musicvae.model.checkpoint import save_run
from musicvae.model.config import PRIOR, ModelConfig, RunConfig
from musicvae.model.drawing import BarDraw, load_prior
from musicvae.model.flow import Flow
from musicvae.model.prior import Cloud, Summaries, fit, save_prior
from musicvae.model.vae import MusicVAE, draw_prior
from musicvae.model.vectors import ATTRIBUTES, save_vectors
from musicvae.music.representation import representation

torch.set_num_threads(1)


def shaken(size: int, seed: int = 0) -> Flow:
    """A flow that changes something, in double precision."""
    torch.manual_seed(seed)
    flow = Flow(size, 12, 3).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return flow


@pytest.mark.parametrize("size", [2, 5, 8])
def test_there_and_back_is_the_same_place(size: int):
    flow, z = shaken(size), torch.randn(20, size, dtype=torch.double)
    with torch.no_grad():
        noise, _ = flow(z)
        assert torch.allclose(flow.inverse(noise), z, atol=1e-10) and not torch.allclose(noise, z, atol=0.1)


@pytest.mark.parametrize("size", [2, 5])
def test_the_determinant_is_that_of_the_matrix_of_derivatives(size: int):
    flow, z = shaken(size), torch.randn(4, size, dtype=torch.double)
    for row, determinant in zip(z, flow(z)[1]):
        derivatives = torch.autograd.functional.jacobian(lambda x: flow(x[None])[0][0], row)
        assert torch.linalg.slogdet(derivatives)[1] == pytest.approx(float(determinant.detach()), abs=1e-8)


def test_a_new_flow_changes_nothing_but_the_order():
    flow, z = Flow(6, 4, 3), torch.randn(9, 6)
    assert float(flow.bits(z).detach()) == pytest.approx(0, abs=1e-5)
    assert torch.equal(flow.inverse(z).sort(dim=1).values, z.sort(dim=1).values)


def test_it_learns_that_one_number_follows_the_square_of_another():
    torch.manual_seed(1)
    x = torch.randn(4000, 2)
    mu = torch.stack([x[:, 0], x[:, 0] ** 2 - 1], dim=1)
    cloud = Cloud(mu, torch.full_like(mu, 0.2))
    learnt, apart = (Cloud(*(part[rows] for part in cloud)) for rows in (slice(3600), slice(3600, None)))
    *_, last = fit(Flow(2, units=24, layers=4), learnt, apart, steps=400, batch_size=256, rate=5e-3)
    with torch.no_grad():
        z = last.prior.inverse(torch.randn(4000, 2))
    assert last.held_back > 1 and last.training > 1, "a bit at least: N(0, I) knows nothing of the square"
    assert np.corrcoef(z[:, 0] ** 2, z[:, 1])[0, 1] > 0.8
    assert abs(float(z[:, 0].std()) - 1) < 0.2
    with pytest.raises(ValueError, match="too few to learn"):
        next(fit(Flow(2, 4, 2), learnt, Cloud(mu[:10], mu[:10].exp()), 5))


def test_each_report_has_a_prior_of_its_own_so_that_the_best_can_be_kept():
    cloud = Cloud(torch.randn(40, 4), torch.ones(40, 4))
    first, last = fit(Flow(4, 8, 2), cloud, Cloud(cloud.mu + 3, cloud.sigma), steps=20, every=10)
    before, after = (torch.cat([p.flatten() for p in found.prior.parameters()]) for found in (first, last))
    assert (first.step, last.step) == (10, 20) and not torch.equal(before, after)


@pytest.mark.parametrize("size", [2, 5, 8])
def test_two_layers_leave_no_number_as_it_was(size: int):
    """The second layer changes the half that the first did not; of an odd number of them one is changed twice."""
    flow = Flow(size, 4, 2)
    first, second = (order[size // 2 :].tolist() for order in flow.order)
    changed = [int(flow.order[0][place]) for place in second]
    assert set(first) | set(changed) == set(range(size))


def test_saved_in_half_precision_it_is_nearly_the_same(tmp_path: Path):
    flow, noise = shaken(6), torch.randn(10, 6, dtype=torch.double)
    save_prior(tmp_path / PRIOR, flow)
    again = load_prior(tmp_path / PRIOR, 6)
    assert np.array_equal(again.order, flow.order)
    with torch.no_grad():
        assert np.allclose(again.inverse(noise.numpy()), flow.inverse(noise), atol=0.05)
    save_prior(tmp_path / PRIOR, flow, half=False)
    with torch.no_grad():
        again = load_prior(tmp_path / PRIOR, 6)
        assert np.allclose(again.inverse(noise.numpy()), flow.double().inverse(noise), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "size", "why"),
    [
        ("order", None, 6, "no flow"),
        ("order", torch.zeros(3, 6).int(), 6, "no order"),
        ("order", torch.arange(6).repeat(10**6, 1).int(), 6, "is too small for these"),
        ("order", torch.arange(6.0).repeat(3, 1), 6, "another kind"),
        ("couplings.0.0.bias", torch.tensor(1.0), 6, "no flow"),
        ("couplings.0.0.bias", torch.zeros(100_000), 6, "is too small for these"),
        ("couplings.1.2.bias", None, 6, "missing"),
        ("couplings.1.2.bias", torch.zeros(13), 6, "another shape"),
        ("couplings.1.2.bias", torch.zeros(12, dtype=torch.complex64), 6, "another kind"),
        ("couplings.1.2.bias", torch.full((12,), torch.nan), 6, "not finite"),
        ("more", torch.zeros(3), 6, "unknown"),
        ("", None, 7, "is for 6 numbers, the model has 7"),
    ],
)
def test_a_broken_file_is_named_with_a_way_out(name: str, value, size: int, why: str, tmp_path: Path):
    from safetensors.torch import save_file

    tensors = {k: v.float() if k != "order" else v for k, v in shaken(6).state_dict().items()}
    if name:
        tensors[name] = value
    save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / PRIOR)
    with pytest.raises(ValueError, match=rf"prior\.safetensors: .*{why}"):
        load_prior(tmp_path / PRIOR, size)
    (tmp_path / PRIOR).write_bytes(b"cut short")
    with pytest.raises(ValueError, match="delete it to draw from"):
        load_prior(tmp_path / PRIOR, size)


def test_a_prior_that_is_there_and_cannot_be_used_is_not_passed_over(tmp_path: Path):
    """As a link into a cache that was emptied: samples of N(0, I) instead would be a silent change."""
    config = ModelConfig((130,), 32, latent_size=4, encoder_units=4, encoder_layers=1, decoder_units=4)
    save_run(tmp_path, MusicVAE(config), RunConfig(name="tiny", representation="melody", model=config))
    (tmp_path / PRIOR).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="cannot be used"):
        load(tmp_path).draw()
    (tmp_path / PRIOR).unlink()
    wild = shaken(4)
    with torch.no_grad():
        wild.couplings[0][-1].bias += 1e5
    save_prior(tmp_path / PRIOR, wild, half=False)
    with pytest.raises(ValueError, match="beyond 1000, so it is damaged"):
        load(tmp_path).sample()


def test_a_model_with_a_prior_samples_from_it(tmp_path: Path):
    config = ModelConfig((130,), 32, latent_size=4, encoder_units=4, encoder_layers=1, decoder_units=4)
    save_run(tmp_path / "run", MusicVAE(config), RunConfig(name="tiny", representation="melody", model=config))
    plain = load(tmp_path / "run")
    assert plain.prior is None, "looked for before there is one"
    save_prior(tmp_path / "run" / PRIOR, shaken(plain.latent_size))
    composer: Composer = load(tmp_path / "run")
    assert composer.prior is not None
    noise = plain.draw(5, seed=2).astype(np.float64)
    assert np.allclose(composer.draw(5, seed=2), composer.prior.inverse(noise), atol=1e-6)
    assert np.array_equal(composer.draw(5, seed=2)[:2], composer.draw(2, seed=2))
    songs = composer.sample(2, temperature=0, seed=2)
    assert [s.to_bytes() for s in songs] == [s.to_bytes() for s in composer.decode(composer.draw(2, 2), 0)]


def test_new_weights_in_a_folder_take_the_prior_of_the_old_ones_away(tmp_path: Path):
    config = ModelConfig((130,), 32, latent_size=4, encoder_units=4, encoder_layers=1, decoder_units=4)
    run = RunConfig(name="tiny", representation="melody", model=config)
    save_run(tmp_path, MusicVAE(config), run)
    save_prior(tmp_path / PRIOR, shaken(4))
    load(tmp_path).save_pretrained(tmp_path / "copy")
    assert load(tmp_path / "copy").prior is not None, "a copy has it"
    save_run(tmp_path, MusicVAE(config), run)
    assert load(tmp_path).prior is None


def test_a_model_saved_over_another_leaves_nothing_of_it(tmp_path: Path):
    config = ModelConfig((130,), 32, latent_size=4, encoder_units=4, encoder_layers=1, decoder_units=4)
    for name in ("a", "b"):
        save_run(tmp_path / name, MusicVAE(config), RunConfig(name=name, representation="melody", model=config))
    save_prior(tmp_path / "a" / PRIOR, shaken(4))
    save_vectors(tmp_path / "a" / ATTRIBUTES, {"loud": np.ones(4)})
    (tmp_path / "a" / "README.md").write_text("a")
    load(tmp_path / "b").save_pretrained(tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("mine")
    load(tmp_path / "b").save_pretrained(tmp_path / "project")
    for folder, card in (("project", "mine"), ("a", "a")):
        assert (tmp_path / folder / "README.md").read_text() == card, "what a person wrote stays"


def test_a_round_is_what_a_vector_says_encoded_again(tmp_path: Path):
    config = ModelConfig((130,), 32, latent_size=4, encoder_units=4, encoder_layers=1, decoder_units=4)
    settings = RunConfig(name="tiny", representation="melody", model=config)
    plain = Composer(MusicVAE(config).eval(), settings, representation("melody"))
    z = plain.draw(5, seed=2)
    assert np.array_equal(plain.draw(5, seed=2, rounds=0), z), "none, where the settings say nothing"
    again = plain.draw(400, seed=2, rounds=1)
    assert np.allclose(again[:5], plain.draw(5, seed=2, rounds=1), atol=1e-5)
    assert not np.allclose(again, plain.draw(400, seed=3, rounds=1), atol=0.1)
    assert not np.allclose(plain.draw(5, seed=2, rounds=2), again[:5], atol=0.1)
    mean, q = again.mean(0), plain.encode_tokens(plain.decode_tokens(plain.draw(400, seed=9), 0.5, 9))
    spread = np.sqrt((q.mu.var(0) + (q.sigma**2).mean(0)) / 400)
    assert (np.abs(mean - q.mu.mean(0)) < 6 * spread).all(), "of the posteriors of what the model writes"
    often = replace(plain, config=replace(settings, rounds=1))
    assert np.array_equal(often.draw(5, seed=2), plain.draw(5, seed=2, rounds=1)), "as often as the settings say"
    assert [s.to_bytes() for s in often.sample(2, seed=2)] == [
        s.to_bytes() for s in often.decode(often.draw(2, 2), seed=2)
    ]
    for wrong in (-1, 101):
        with pytest.raises(ValueError, match=f"{wrong} rounds; it must be from 0"):
            plain.draw(1, rounds=wrong)
    blind = replace(plain, config=replace(settings, trained={"encodes": False}))
    assert len(blind.draw(2)) == 2
    with pytest.raises(ValueError, match="cannot encode"):
        blind.draw(2, rounds=1)


def shaken_bars(size: int = 4, seed: int = 0) -> BarPrior:
    """A prior of bars that changes something, in double precision."""
    torch.manual_seed(seed)
    prior = BarPrior(size, units=6, layers=2, hidden=5, given=3).double()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        prior.mean += torch.randn(size)
        prior.scale *= torch.rand(size) + 0.5
    return prior


def test_the_bits_of_bars_are_those_of_the_change_of_variables():
    """log p(s) = log N(noise) - log |ds/dnoise|, and the derivative of a bar after its own noise is all that counts."""
    prior, bars = shaken_bars(), 10  # longer than the longest of LAGS
    noise = torch.randn(1, bars, 4, dtype=torch.double)
    with torch.no_grad():
        summaries = prior.inverse(noise)
    whole = torch.autograd.functional.jacobian(prior.inverse, noise).reshape(bars * 4, bars * 4)
    assert not whole.triu(4).any(), "no bar hears of the bars after it"
    for lag in LAGS:
        assert whole[4 * lag : 4 * lag + 4, :4].any(), "and each of those before it"
    normal = torch.distributions.Normal(prior.mean, prior.scale).log_prob(summaries).sum()
    ours = torch.distributions.Normal(0, 1).log_prob(noise).sum() - torch.linalg.slogdet(whole)[1]
    assert float(prior.bits(summaries).detach()) == pytest.approx(float((ours - normal) / np.log(2)), abs=1e-6)


def test_a_new_prior_of_bars_draws_numbers_with_their_mean_and_scale():
    prior = BarPrior(3, 4, 2, 4, 2)
    prior.mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    prior.scale.fill_(0.5)
    noise = torch.randn(50, 4, 3)
    with torch.no_grad():
        summaries = prior.inverse(noise)
        assert float(prior.bits(summaries)) == pytest.approx(0, abs=1e-4)
    back = ((summaries - prior.mean) / prior.scale).sort(dim=2).values
    assert torch.allclose(back, noise.sort(dim=2).values, atol=1e-5)


def test_a_prior_of_bars_learns_that_every_fourth_bar_comes_back():
    torch.manual_seed(1)
    phrase = torch.randn(600, 4, 6)
    windows = Summaries(phrase.repeat(1, 4, 1), grain=0.1)
    learnt, apart = (windows._replace(values=windows.values[rows]) for rows in (slice(500), slice(500, None)))
    *_, last = fit(BarPrior(6, 24, 2, 24, 24), learnt, apart, steps=300, batch_size=64, rate=1e-2)
    with torch.no_grad():
        drawn = last.prior.inverse(torch.randn(200, 16, 6))
    bars = drawn - drawn.mean((0, 1))
    alike = {lag: float((bars[:, lag:] * bars[:, :-lag]).mean() / bars.square().mean()) for lag in (1, 2, 4, 8)}
    assert last.held_back > 50 and alike[4] > 0.8 and alike[8] > 0.6
    assert abs(alike[1]) < 0.2 and abs(alike[2]) < 0.2


def test_a_prior_of_bars_is_kept_and_drawn_from_through_the_reader(tmp_path: Path):
    sizes = {"latent_size": 5, "encoder_units": 4, "conductor_units": 4, "condition_size": 4, "decoder_units": 4}
    config = ModelConfig((130,), 64, 4, encoder_bars=4, **sizes)
    settings = RunConfig(name="tiny", representation="melody", model=config, spread=0.5)
    save_run(tmp_path, MusicVAE(config), settings)
    prior = shaken_bars(4)
    save_prior(tmp_path / PRIOR, prior, half=False)
    composer = load(tmp_path)
    z = composer.draw(300, seed=2)
    assert isinstance(composer.prior, BarDraw) and np.allclose(z[:3], composer.draw(3, seed=2), atol=1e-6)
    with torch.no_grad():
        noise = draw_prior(300, 4 * 4 + 5, 2)
        summaries = prior.inverse(0.5 * noise[:, :16].double().unflatten(1, (4, 4)))
        q = composer.model.posterior_of_bars(summaries.float())
        assert np.allclose(z, (q.mean + q.stddev * noise[:, 16:]).numpy(), atol=1e-5)
    assert len(composer.sample(2, temperature=1, rounds=1)) == 2
    with pytest.raises(ValueError, match="which the model's encoder does not sum up"):
        load_prior(tmp_path / PRIOR, 4)
    with pytest.raises(ValueError, match="it is for 4 numbers, the model has 7"):
        load_prior(tmp_path / PRIOR, 4, 7)
    with pytest.raises(ValueError, match="say a spread of -1; it must be 0 or more"):
        replace(composer, config=replace(settings, spread=-1.0)).draw()
    (tmp_path / PRIOR).unlink()
    assert np.array_equal(load(tmp_path).draw(3, seed=2), draw_prior(3, 5, 2).numpy()), "N(0, I), all of it"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("to_given.bias", None, "no prior of bars"),
        ("to_given.bias", torch.zeros(10**6), "is too small for these"),
        ("memory.bias_hh_l0", torch.zeros(3 * 10**6), "is too small for these"),
        ("memory.weight_hh_l0", torch.zeros(15, 6), "another shape"),
        ("mean", torch.full((4,), torch.inf), "not finite"),
        ("flow.order", None, "no flow"),
    ],
)
def test_a_broken_prior_of_bars_is_named_with_a_way_out(name: str, value, why: str, tmp_path: Path):
    from safetensors.torch import save_file

    tensors = {k: v.float() if v.is_floating_point() else v for k, v in shaken_bars().state_dict().items()}
    tensors[name] = value
    save_file({k: v for k, v in tensors.items() if v is not None}, tmp_path / PRIOR)
    with pytest.raises(ValueError, match=rf"prior\.safetensors: .*{why}.*delete it to draw from"):
        load_prior(tmp_path / PRIOR, 8, 4)
