from emulated_operators import (  # noqa: F401
    attack_steps,
    losses,
    losses_library,
    starts_and_state,
    starts_and_state_library,
    toolchain,
)
