"""The GPU's losses on the emulator: called as the raw operator is."""

import ctypes

import torch
from calls import DTYPES
from emulated import Emulation, Memory, compile_library, poison


class LossJob(ctypes.Structure):
    """As in csrc/losses.h."""

    _fields_ = (
        ("loss", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("logits", "clean")),
        *((name, ctypes.c_int64) for name in ("row_stride", "clean_row_stride")),
        *((name, ctypes.c_void_p) for name in ("y", "targets", "losses", "correct", "margins", "grad", "clean_grad")),
        *((name, ctypes.c_int64) for name in ("rows", "classes")),
        *((name, ctypes.c_double) for name in ("beta", "largest")),
    )


class Losses(Emulation):
    """``settings`` of the emulator and ``offset`` of the logits, in elements, hold for all calls that follow."""

    def __init__(self, folder):
        super().__init__(compile_library(folder, ("../../csrc/cuda/losses.cu", "-xc++"), ("losses.cpp",)))
        self.library.loss_room.restype = ctypes.c_int64
        self.settings, self.offset = {}, 0

    def attack_loss(self, logits, y, targets, clean, loss, beta, grad, clean_grad):
        rows, classes = logits.shape
        computed = torch.float64 if logits.dtype == torch.float64 else torch.float32
        job = LossJob(loss=loss, rows=rows, classes=classes, beta=beta, largest=torch.finfo(logits.dtype).max)
        job.row_stride = job.clean_row_stride = classes
        memory = {"logits": Memory(logits, self.offset), "y": Memory(y)}
        memory |= {"losses": poison(torch.empty(rows, dtype=computed)), "correct": poison(torch.empty(rows).bool())}
        memory["margins"] = poison(torch.empty(rows, dtype=computed))
        memory |= {"targets": Memory(targets)} if targets is not None else {}
        memory |= {"clean": Memory(clean, self.offset)} if clean is not None else {}
        memory |= {"grad": poison(logits, self.offset)} if grad else {}
        memory |= {"clean_grad": poison(logits, self.offset)} if clean_grad else {}
        for name, m in memory.items():
            setattr(job, name, m.address)
        room = self.library.loss_room(ctypes.byref(job))
        if room:
            memory["room"] = poison(torch.empty(room, dtype=torch.uint8))
        address = ctypes.c_void_p(memory["room"].address if room else None)
        arguments = DTYPES.index(logits.dtype), ctypes.byref(job), address
        self.call("losses", *arguments, memory=list(memory.values()), **self.settings)
        self.memory = memory
        empty = logits.new_empty(0)
        written = [memory[name].tensor if name in memory else empty for name in ("grad", "clean_grad")]
        return [memory[name].tensor for name in ("losses", "correct", "margins")] + written
