"""The counter-based generator and the starts that are made from it."""

import pytest
import torch

from sat_kernels.ops.random import philox, uniform


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_published_known_answers(counter, key, words):
    # In vectors of 9, so that vectorised and scalar code both run.
    result = philox([torch.full((9,), c) for c in counter], key)
    assert [w.tolist() for w in result] == [[w] * 9 for w in words]


def test_is_uniform_in_the_open_interval():
    noise = uniform(torch.empty(4, 50_000), seed=3, sample_ids=torch.arange(4), restart=0)
    assert noise.abs().max() < 1
    # Odd multiples of 2^-24: symmetric, and neither 0 nor +-1.
    assert (noise.double() * 2**24 % 2 == 1).all()
    # Five standard errors.
    assert noise.mean().abs() < 5 / (3 * noise.numel()) ** 0.5
    assert (noise.square().mean() - 1 / 3).abs() < 5 * (4 / 45 / noise.numel()) ** 0.5
    assert (torch.histc(noise, 64, -1, 1) - noise.numel() / 64).abs().max() < 5 * (noise.numel() / 64) ** 0.5
    assert torch.corrcoef(noise)[~torch.eye(4, dtype=torch.bool)].abs().max() < 5 / 50_000**0.5


def test_depends_on_seed_id_and_restart_alone():
    like = torch.empty(5, 3, 4, 4)
    ids = torch.tensor([0, 1, -1, 2**40, 2**62])
    noise = uniform(like, 11, ids, 2)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(uniform(like, 11, ids[order], 2), noise[order])
    assert torch.equal(torch.cat([uniform(like[:2], 11, ids[:2], 2), uniform(like[2:], 11, ids[2:], 2)]), noise)
    assert torch.equal(uniform(like.to(memory_format=torch.channels_last), 11, ids.int().long(), 2)[:2], noise[:2])
    assert torch.equal(uniform(like.double(), 11, ids, 2), noise.double())
    others = [uniform(like, 12, ids, 2), uniform(like, 11, ids, 3), uniform(like, 11 + 2**32, ids, 2)]
    for other in (*others, noise.flip(0)):
        assert (other == noise).float().mean() < 0.25
    # Every id has numbers of its own, also where only the upper word differs.
    assert len({tuple(row.flatten().tolist()) for row in noise}) == 5


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (3,), (2, 1), (2, 7)])
def test_shapes(shape):
    assert uniform(torch.empty(shape), 0, torch.arange(shape[0]), 0).shape == shape


def test_keeps_the_memory_format():
    like = torch.empty(2, 3, 4, 4, memory_format=torch.channels_last)
    assert uniform(like, 0, torch.arange(2), 0).is_contiguous(memory_format=torch.channels_last)
