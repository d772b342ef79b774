import pytest
import torch


def pytest_addoption(parser):
    parser.addoption(
        "--peer", default="sat_kernels", help="the library that tests/conformance runs against; or module:Class"
    )


@pytest.fixture(autouse=True)
def one_thread():
    """The tensors are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
