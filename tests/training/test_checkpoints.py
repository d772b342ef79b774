import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from sat_kernels.training import files
from sat_kernels.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from sat_kernels.training.files import write_atomic


def test_nested_state_comes_back_with_its_types(tmp_path):
    shared = torch.randn(3, 4)
    state = {
        "tensors": [shared, shared, shared.t(), torch.tensor(2), torch.zeros(0, 3), torch.randn(2).bfloat16()],
        "state": {0: {"momentum_buffer": torch.arange(3)}, 1: {}},
        "numbers": (0.1, 3, -0.0, float("inf"), True, None, "text"),
        "/": {"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}},
    }
    save_checkpoint(tmp_path / "c", state)
    loaded = load_checkpoint(tmp_path / "c")
    for before, after in zip(state["tensors"], loaded["tensors"], strict=True):
        assert before.dtype == after.dtype
        assert torch.equal(before, after)
    assert loaded["numbers"] == state["numbers"]
    assert [type(value) for value in loaded["numbers"]] == [type(value) for value in state["numbers"]]
    assert list(loaded["state"]) == [0, 1]
    assert torch.equal(loaded["state"][0]["momentum_buffer"], torch.arange(3))
    assert loaded["/"]["a/b"].item() == 1
    assert loaded["/"]["a"]["b"].item() == 0


def test_optimizer_and_scheduler_states_survive(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    save_checkpoint(tmp_path / "c", {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded["scheduler"] == scheduler.state_dict()
    assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]
    torch.testing.assert_close(loaded["optimizer"]["state"], optimizer.state_dict()["state"], rtol=0, atol=0)


def test_what_can_not_be_stored_is_named(tmp_path):
    with pytest.raises(TypeError, match="/model/hook is a function"):
        save_checkpoint(tmp_path / "c", {"model": {"hook": lambda: None}})
    assert not (tmp_path / "c").exists()


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_pickles_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").write_bytes(pickle.dumps(Bomb()))
    torch.save(OrderedDict(a=Bomb()), tmp_path / "torch")
    for name in ("raw", "torch"):
        with pytest.raises(CheckpointError, match=f"{name}: damaged, or not a safetensors file"):
            load_checkpoint(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_truncated_file_is_refused_at_every_length(tmp_path):
    save_checkpoint(tmp_path / "c", {"a": torch.randn(10), "b": 1})
    content = (tmp_path / "c").read_bytes()
    for length in range(0, len(content), 7):
        (tmp_path / "c").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(tmp_path / "c")


def test_foreign_and_missing_files_are_named(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="foreign: a safetensors file, but not a checkpoint of this program"):
        load_checkpoint(tmp_path / "foreign")
    with pytest.raises(CheckpointError, match="missing: no such file"):
        load_checkpoint(tmp_path / "missing")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    write_atomic(tmp_path / "file", "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    monkeypatch.undo()
    write_atomic(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "new"


def test_content_is_on_disk_before_it_replaces(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a)))
    write_atomic(tmp_path / "file", b"content")
    assert calls[:2] == ["fsync", "replace"]
