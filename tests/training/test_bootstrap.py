import numpy as np
import pytest

from sat_kernels.training.bootstrap import bootstrap_mean


def test_one_seed_agrees_with_the_binomial_interval():
    values = np.zeros((1, 1000))
    values[0, :300] = 1
    interval = bootstrap_mean(values)
    assert interval.mean == pytest.approx(0.3)
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (interval.low, interval.high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.002)


def test_both_images_and_seeds_count():
    random = np.random.default_rng(0)
    seeds, images = random.normal(size=(40, 1)), random.normal(size=(1, 50))
    interval = bootstrap_mean(seeds + images)
    half = 1.96 * np.sqrt(seeds.var() / 40 + images.var() / 50)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.05)


def test_pairing_cancels_what_is_common():
    random = np.random.default_rng(1)
    common = (random.random((3, 700)) < 0.7).astype(float)
    better = common.copy()
    better[:, :14] = 1
    baseline = common.copy()
    baseline[:, :14] = 0
    interval = bootstrap_mean(100 * (better - baseline))
    assert interval.mean == pytest.approx(2)
    assert 0.9 < interval.low < 2 < interval.high < 3.2
    assert not interval.covers_zero


def test_no_difference_covers_zero_and_constant_has_no_width():
    assert bootstrap_mean(np.zeros((3, 10))).covers_zero
    interval = bootstrap_mean(np.full((3, 10), 2.5))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((2.5, 2.5, 2.5))
    assert not interval.covers_zero


def test_seeded():
    values = np.random.default_rng(2).random((3, 20))
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


@pytest.mark.parametrize("shape", [(3,), (0, 5), (5, 0), (1, 2, 3)])
def test_shape_is_checked(shape):
    with pytest.raises(ValueError, match="expected \\(seeds, images\\)"):
        bootstrap_mean(np.zeros(shape))
