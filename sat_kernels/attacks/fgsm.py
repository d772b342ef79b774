"""Fast gradient sign method."""

import torch

from .pgd import PGD


class FGSM(PGD):
    """One step of size eps from the clean input (Goodfellow et al., arXiv 1412.6572), or its like for L2 and L1.

    Arguments, call and errors as for :class:`PGD`; there is no random start.
    """

    def __init__(
        self,
        model,
        eps: float = 8 / 255,
        *,
        norm: str = "Linf",
        targeted: bool = False,
        clip_min: float = 0.0,
        clip_max: float = 1.0,
        loss="ce",
        mode: str = "eval",
        precision: str = "fp32",
        lower: bool = True,
        feasible: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__(
            model,
            eps,
            eps,
            steps=1,
            random_start=False,
            norm=norm,
            targeted=targeted,
            clip_min=clip_min,
            clip_max=clip_max,
            loss=loss,
            mode=mode,
            precision=precision,
            lower=lower,
            feasible=feasible,
            generator=generator,
        )
