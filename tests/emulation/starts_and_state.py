"""The GPU's random starts and state of attacks on the emulator: called as the raw operators are."""

import ctypes

import torch
from calls import DTYPES
from emulated import Emulation, Memory, compile_library, poison


def structure(name: str, **fields) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


P, N, D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
# As in csrc/steps.h, csrc/starts.h and csrc/state.h.
Size = structure("Size", number=D, of=P, per_sample=N, per_channel=N)
RandomStart = structure(
    "RandomStart", x=P, x_adv=P, samples=N, sample_size=N, channels=N, noise=ctypes.c_int, radius=ctypes.c_int,
    norm=ctypes.c_int, scale=Size, eps=Size, lowest=D, highest=D, seed=N, restart=N, seed_of=P, restart_of=P,
    sample_ids=P,
)  # fmt: skip
KeepBest = structure(
    "KeepBest", best=P, x_adv=P, best_loss=P, loss=P, success=P, fooled=P, samples=N, sample_size=N
)  # fmt: skip
ApgdUpdate = structure(
    "ApgdUpdate", x_adv=P, grad=P, best=P, best_grad=P, fooling=P, x=P, loss=P, best_loss=P, previous_loss=P,
    checkpoint_loss=P, step_size=P, largest_step=P, rises=P, top_k=P, sparsity=P, reduced=P, success=P, fooled=P,
    samples=N, sample_size=N, checkpoint=N, few_rises=N,
)  # fmt: skip
CHANGED = (
    "x_adv", "grad", "best", "best_grad", "fooling", "best_loss", "previous_loss", "checkpoint_loss", "step_size",
    "rises", "reduced", "success", "top_k", "sparsity",
)  # fmt: skip


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """Dense memory as a vector."""
    return tensor.as_strided((tensor.numel(),), (1,))


class StartsAndState(Emulation):
    """``settings`` of the emulator and ``offset`` of the images, in elements, hold for all calls that follow."""

    def __init__(self, folder):
        sources = [(f"../../csrc/cuda/{name}.cu", "-xc++") for name in ("starts", "state")]
        super().__init__(compile_library(folder, *sources, ("starts_and_state.cpp",)))
        self.settings, self.offset = {}, 0

    def run(self, function: str, types: list, job, memory: dict[str, Memory]) -> None:
        """``memory``: by the names of the job's fields."""
        for name, m in memory.items():
            setattr(job, name, m.address)
        numbers = [DTYPES.index(t) for t in types]
        self.call(function, *numbers, ctypes.byref(job), memory=list(memory.values()), **self.settings)
        self.memory = memory

    def random_start(
        self, x, noise, radius, norm, scale, eps, scale_of, eps_of, lowest, highest, seed, seed_of, restart,
        restart_of, sample_ids,
    ):  # fmt: skip
        memory = {"x": Memory(flat(x), self.offset), "x_adv": poison(flat(x), self.offset)}
        job = RandomStart(
            samples=x.shape[0], sample_size=x[0].numel(), channels=1 if x.is_contiguous() else x.shape[1],
            noise=noise, radius=radius, norm=norm, lowest=lowest, highest=highest, seed=seed, restart=restart,
        )  # fmt: skip
        tensors = {"seed_of": seed_of, "restart_of": restart_of, "sample_ids": sample_ids}
        memory |= {name: Memory(t.reshape(-1)) for name, t in tensors.items() if t is not None}
        sizes = []
        for name, number, of in (("scale", scale, scale_of), ("eps", eps, eps_of)):
            if of is not None:
                sizes.append(Memory(of.reshape(-1)))
                setattr(job, name, Size(number, sizes[-1].address, int(of.numel() > 1), 0))
            else:
                setattr(job, name, Size(number, None, 0, 0))
        for name, m in memory.items():
            setattr(job, name, m.address)
        self.call(
            "random_start", DTYPES.index(x.dtype), ctypes.byref(job), memory=[*memory.values(), *sizes], **self.settings
        )
        self.memory = memory
        return memory["x_adv"].tensor.as_strided(x.shape, x.stride(), memory["x_adv"].tensor.storage_offset())

    def state(self, name: str, *arguments) -> None:
        """keep_best_ or apgd_update_."""
        getattr(self, name)(*arguments)

    def keep_best_(self, best, best_loss, success, x_adv, loss, fooled):
        written = {"best": best, "best_loss": best_loss, "success": success}
        job = KeepBest(samples=best.shape[0], sample_size=best[0].numel())
        self.change("keep_best", [best.dtype], job, written, {"x_adv": x_adv, "loss": loss, "fooled": fooled})

    def apgd_update_(self, *arguments):
        names = (*CHANGED, "largest_step", "loss", "fooled", "x")
        *tensors, checkpoint, few_rises = arguments
        given = {name: t for name, t in zip(names, tensors, strict=True) if t is not None}
        x_adv = given["x_adv"]
        job = ApgdUpdate(
            samples=x_adv.shape[0], sample_size=x_adv[0].numel(), checkpoint=checkpoint, few_rises=few_rises
        )  # fmt: skip
        written = {name: given.pop(name) for name in CHANGED if name in given}
        self.change("apgd_update", [x_adv.dtype, written["grad"].dtype], job, written, given)

    def change(self, function, types, job, written, read):
        def placed(tensor, writable):
            return Memory(flat(tensor), self.offset if tensor.dim() > 1 else 0, writable)

        memory = {name: placed(t, True) for name, t in written.items()}
        self.run(function, types, job, memory | {name: placed(t, False) for name, t in read.items()})
        for name, tensor in written.items():
            flat(tensor).copy_(memory[name].tensor)
