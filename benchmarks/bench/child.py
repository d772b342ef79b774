"""A case in a process of its own, whose C library gives memory back as it does by default."""

import json
import os
import subprocess
import sys

import cases
import torch
from cases.setting import Setting
from measuring.case import Case


def measured(case: Case, setting: Setting) -> list[dict]:
    """The rows of ``case``, which a new process finds by its name."""
    settings = [setting.device.type, setting.level, setting.compiler, str(torch.get_num_threads())]
    command = [sys.executable, "-m", "bench.child", case.suite, str(case), *settings]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        told = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        return [{"side": side, "error": told} for side in case.sides]
    return json.loads(result.stdout.splitlines()[-1])


def main(suite: str, name: str, device: str, level: str, compiler: str, threads: str) -> None:
    from .run import measured as measure

    torch.set_num_threads(int(threads))
    setting = Setting(torch.device(device), level, compiler)
    case = next(case for case in cases.cases(suite, setting) if str(case) == name)
    installed = {side: way for side, way in case.sides.items() if way.installed}
    print(json.dumps(measure(case.having(sides=installed), setting)))


if __name__ == "__main__":
    main(*sys.argv[1:])
