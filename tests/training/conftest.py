import pytest
import torch

from sat_kernels.training.config import AttackConfig, MonitorConfig, TrainConfig


@pytest.fixture
def tiny(tmp_path):
    """A run of milliseconds per epoch; one thread, as rounding depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TrainConfig(
        output=str(tmp_path / "run"),
        activation="smooth_relu",
        width=2,
        epochs=3,
        batch_size=256,
        threads=1,
        device="cpu",
        attack=AttackConfig(steps=1),
        monitor=MonitorConfig(every=0),
    )
    torch.set_num_threads(threads)
