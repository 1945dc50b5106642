"""The geometry of the latent space: facts about angles, lengths and means, and vectors that survive on disk."""

import numpy as np
import pytest

from musicvae.model.latent import attribute_vector, average, grid, linear, mix, path, slerp
from musicvae.model.vectors import load_vectors, save_vectors

RNG = np.random.default_rng(0)
A, B, C, D = RNG.normal(size=(4, 16)) * np.array([[1], [3], [0.5], [2]])
ZERO = np.zeros(16)
PAIRS = {
    "any two": (A, B),
    "of one direction": (A, 2.5 * A),
    "nearly of one direction": (A, A + 1e-7 * B),
    "opposite": (A, -3 * A),
    "nearly opposite": (A, -A + 1e-7 * B),
    "the first zero": (ZERO, B),
    "the second zero": (A, ZERO),
    "both zero": (ZERO, ZERO),
    "the same": (A, A),
}
each_pair = pytest.mark.parametrize(("a", "b"), PAIRS.values(), ids=PAIRS)


def length(vectors):
    return np.linalg.norm(vectors, axis=-1)


def angle(a, b):
    return np.arccos(np.clip((a * b).sum(-1) / length(a) / length(b), -1, 1))


def test_halfway_between_upright_unit_vectors_the_length_is_one_and_both_are_equally_near():
    x, y = np.eye(2)
    half = slerp(x, y, 0.5)
    assert length(half) == pytest.approx(1)
    assert half @ x == pytest.approx(half @ y) == pytest.approx(np.sqrt(0.5))


def test_the_direction_turns_at_constant_speed_and_the_length_goes_in_a_line():
    fractions = np.linspace(0, 1, 9)
    way = slerp(A, B, fractions)
    np.testing.assert_allclose(angle(A, way), fractions * angle(A, B), atol=1e-7)
    np.testing.assert_allclose(length(way), (1 - fractions) * length(A) + fractions * length(B))


@pytest.mark.parametrize("go", [slerp, linear])
@each_pair
def test_zero_is_exactly_a_one_exactly_b_and_all_between_is_finite(a, b, go):
    assert np.array_equal(go(a, b, 0.0), a) and np.array_equal(go(a, b, 1.0), b)
    assert np.isfinite(go(a, b, np.linspace(0, 1, 11))).all()


@pytest.mark.parametrize("go", [slerp, linear])
@each_pair
def test_the_way_back_is_the_way_there(a, b, go):
    fractions = np.linspace(0, 1, 11)
    np.testing.assert_allclose(go(a, b, fractions), go(b, a, 1 - fractions), atol=1e-6)


@each_pair
def test_no_step_of_a_path_is_larger_than_its_share_of_turn_and_length(a, b):
    way = slerp(a, b, np.linspace(0, 1, 101))
    whole = np.pi * max(length(a), length(b)) + abs(length(a) - length(b))
    assert length(np.diff(way, axis=0)).max() <= 1.001 * whole / 100


def test_between_vectors_of_one_direction_only_the_length_changes():
    np.testing.assert_allclose(slerp(A, 2.5 * A, 0.4), 1.6 * A)


def test_between_opposite_vectors_the_way_goes_round_and_not_through_zero():
    way = slerp(A, -3 * A, np.linspace(0, 1, 11))
    np.testing.assert_allclose(length(way), np.linspace(1, 3, 11) * length(A))


def test_from_a_vector_without_direction_the_way_is_straight():
    np.testing.assert_allclose(slerp(ZERO, B, 0.25), B / 4)


def test_rows_are_interpolated_each_for_itself():
    together = slerp(np.stack([A, B]), np.stack([C, D]), 0.3)
    np.testing.assert_allclose(together, [slerp(A, C, 0.3), slerp(B, D, 0.3)])


def test_vectors_of_different_size_and_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"\(16,\) and \(15,\)"):
        slerp(A, B[:15], 0.5)
    with pytest.raises(ValueError, match="not finite"):
        slerp(A, B, np.nan)


def test_a_path_counts_its_ends_and_a_straight_one_has_equal_steps():
    way = path(A, B, 5, straight=True)
    assert way.shape == (5, 16) and np.array_equal(way[[0, -1]], [A, B])
    np.testing.assert_allclose(np.diff(way, axis=0), np.broadcast_to((B - A) / 4, (4, 16)))
    with pytest.raises(ValueError, match="at least 2"):
        path(A, B, 1)


@pytest.mark.parametrize("straight", [False, True])
def test_the_corners_of_a_grid_are_given_and_its_edges_are_paths(straight: bool):
    square = grid(np.stack([A, B, C, D]), 4, straight)
    assert np.array_equal(square[[0, 0, -1, -1], [0, -1, 0, -1]], [A, B, C, D])
    for edge, ends in ((square[0], (A, B)), (square[-1], (C, D)), (square[:, 0], (A, C)), (square[:, -1], (B, D))):
        np.testing.assert_allclose(edge, path(*ends, 4, straight))
    with pytest.raises(ValueError, match=r"\(4, Z\)"):
        grid(np.stack([A, B, C]), 4)


def test_all_weight_on_one_vector_gives_that_vector():
    assert np.array_equal(mix(np.stack([A, B, C]), np.eye(3)), [A, B, C])


def test_a_mix_has_the_direction_of_the_mean_and_the_mean_of_the_lengths():
    mixed = mix(np.stack([A, B, C]), [2.0, 1.0, 1.0])
    assert length(mixed) == pytest.approx(length(A) / 2 + length(B) / 4 + length(C) / 4)
    assert angle(mixed, 2 * A + B + C) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(mixed, mix(np.stack([C, A, B]), [0.25, 0.5, 0.25]))


def test_an_average_is_no_shorter_than_what_it_is_the_average_of():
    many = RNG.normal(size=(50, 16))
    assert length(many.mean(0)) < 0.4 * length(many).mean()
    assert length(average(many)) == pytest.approx(length(many).mean())


def test_the_average_of_opposites_has_no_direction():
    assert np.array_equal(average(np.stack([A, -A])), ZERO)


@pytest.mark.parametrize("weights", [[1.0, -0.5], [0.0, 0.0], [1.0, np.nan], [1.0]])
def test_weights_that_are_none_are_refused(weights: list[float]):
    with pytest.raises(ValueError, match="weights"):
        mix(np.stack([A, B]), weights)


def test_an_attribute_vector_leads_from_those_who_lack_to_those_who_have():
    having, lacking = RNG.normal(size=(7, 16)), RNG.normal(size=(5, 16))
    np.testing.assert_allclose(lacking.mean(0) + attribute_vector(having, lacking), having.mean(0))
    with pytest.raises(ValueError, match="7 and 0"):
        attribute_vector(having, lacking[:0])


def test_vectors_come_back_from_disk_by_name(tmp_path):
    path = tmp_path / "new" / "attributes.safetensors"
    save_vectors(path, {"c-major": A, "busy": B})
    found = load_vectors(path, 16)
    assert list(found) == ["busy", "c-major"] and [p.name for p in path.parent.iterdir()] == [path.name]
    assert np.array_equal(found["busy"], B.astype(np.float32))


def test_vectors_of_another_model_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "attributes.safetensors"
    with pytest.raises(ValueError, match="no such file"):
        load_vectors(path, 16)
    save_vectors(path, {"busy": A})
    with pytest.raises(ValueError, match=r"'busy' has shape \(16,\); this model needs 8"):
        load_vectors(path, 8)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="cannot be read"):
        load_vectors(path, 16)
