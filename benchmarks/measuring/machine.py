"""What machine, what versions, what sources. Without torch, so that it can be said that torch is missing."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What figures depend on; results and pages do not.
CODE = ("csrc", "sat_kernels", "benchmarks/measuring", "benchmarks/cases", "benchmarks/bench", "setup.py")
# AMD's generations by family, and by the first model of each; virtual machines tell no more.
ZEN = {23: {0x00: 1, 0x30: 2}, 25: {0x00: 3, 0x10: 4, 0x20: 3, 0x60: 4}, 26: {0x00: 5}}
ISA = (
    "avx2",
    "fma",
    "avx512f",
    "avx512vl",
    "avx512_bf16",
    "avx512_vnni",
    "amx_tile",
    "amx_bf16",
    "neon",
    "asimd",
    "sve",
)


def version(package: str) -> str:
    """Of an installed distribution; "unknown" if it can be imported, but is none; or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown" if importlib.util.find_spec(package) else ""


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:
        return ""


def fingerprint(folders=CODE) -> str:
    """Of the sources in ``folders``."""
    digest = hashlib.sha256()
    for folder in folders:
        path = ROOT / folder
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".cpp", ".h", ".cu", ".cuh"):
                digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """The last one that changed what figures depend on; with "+" and a fingerprint where that differs from it now."""
    last = _git("log", "-1", "--format=%h", "--abbrev=12", "--", *CODE)
    changed = _git("status", "--porcelain", "--", *CODE)
    return last if last and not changed else f"{last}+{fingerprint()[:8]}"


def cpu() -> dict:
    """Of /proc/cpuinfo's first processor: name, family, model, flags."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        first = ""
    facts = dict(re.findall(r"^(.*?)\s*:[ \t]*(.*)$", first, re.MULTILINE))
    flags = facts.get("flags", facts.get("Features", "")).split()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "cpu_family": int(facts.get("cpu family", 0)),
        "cpu_model": int(facts.get("model", 0)) if facts.get("model", "").isdigit() else 0,
        "isa": [name for name in ISA if name in flags],
        "cores": os.cpu_count(),
    }


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def cpu_slug(facts: dict) -> str:
    """Such as "epyc-zen4" or "intel-xeon-platinum-8481c"."""
    name = re.sub(r"\((R|TM|r|tm)\)|@.*|\bCPU\b|\bProcessor\b|\b\d+-Core\b|^AMD\b", " ", facts["cpu"])
    models = ZEN.get(facts["cpu_family"], {}) if "AMD" in facts["cpu"] else {}
    generations = [models[first] for first in sorted(models) if first <= facts["cpu_model"]]
    return slug(f"{name} zen{generations[-1]}" if generations else name)


def name(gpu: str = "") -> str:
    """What folders of results are called: of the GPU, else the CPU, and of the number of cores."""
    facts = cpu()
    return f"{slug(gpu) if gpu else cpu_slug(facts)}-{facts['cores']}cores"
