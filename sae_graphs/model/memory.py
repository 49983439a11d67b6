"""How much memory a run may take, and what it is spent on.

A budget is given (`4GiB`) or taken from the machine. From it go, in this order, what the libraries
take, the model, and the SAEs: all of them where they fit, else two at a time. What is left is
*working memory*, for activations and batches. Everything is computed from the sizes of weights,
never from what the process happens to hold, so that one budget gives one plan.

On a GPU the budget is the GPU's memory. Sizes are in bytes. Torch is imported only to ask a GPU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

import psutil

from sae_graphs.errors import SaeGraphsError

KIB, MIB, GIB = 2**10, 2**20, 2**30
SHARE = Fraction(8, 10)  # of the memory that is free, where no budget is given

# Measured on Linux (torch 2.13, transformers 5) without the weights: 523 MiB once a model is
# loaded, 600 MiB at the end of a run that draws. On a GPU as much is left to context and kernels.
LIBRARIES = 640 * MIB
LEAST_WORKING = 256 * MIB  # with less, batches are too small to be worth a run

_UNITS = {"B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _UNITS[f"{_letter}B"] = 1000**_power
    _UNITS[f"{_letter}IB"] = 1024**_power
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?b)", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in a size such as `4GiB`, `1.5 GB` or `800MiB`; the case of letters does not matter.

    >>> parse_size("1.5GiB")
    1610612736
    """
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) and text.isascii() else None
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise SaeGraphsError(
            f"memory {text!r} is not a size; expected a number and a unit (B, KiB, MiB, GiB, TiB, "
            "KB, MB, GB, TB); write for example 4GiB"
        )
    size = int(Fraction(found[1].rstrip(".")) * unit)
    if size < 1:
        raise SaeGraphsError(f"memory {text!r} is nothing; expected a size such as 4GiB")
    return size


def format_size(size: int) -> str:
    """A size that `parse_size` reads, rounded up: to MiB, from 10 GiB on to tenths of a GiB.

    >>> format_size(1610612736), format_size(1610612737)
    ('1536MiB', '1537MiB')
    """
    if size >= 10 * GIB:
        tenths = ceil(Fraction(10 * size, GIB))
        return f"{tenths // 10}GiB" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10}GiB"
    return f"{ceil(Fraction(size, MIB))}MiB"


@dataclass(frozen=True)
class SAESize:
    """What one SAE takes: `held` once loaded; `loading`, besides, for as long as it is read.

    Weights that are stored in another precision are in memory twice while they are converted.
    """

    held: int
    loading: int = 0


@dataclass(frozen=True)
class MemoryPlan:
    """What a budget of `total` bytes is spent on.

    Raises `SaeGraphsError` where it cannot hold the model, two SAEs (if there are any) and the
    least working memory.
    """

    total: int
    model: int
    saes: tuple[SAESize, ...]
    libraries: int = LIBRARIES

    def __post_init__(self) -> None:
        if self.total < self.least:
            pair = f"the two largest SAEs {format_size(self.pair)}, " if self.saes else ""
            raise SaeGraphsError(
                f"{_rounded_down(self.total)} of memory is too little: the libraries take "
                f"{format_size(self.libraries)}, the model {format_size(self.model)}, {pair}a run "
                f"at least {format_size(LEAST_WORKING)}; give {format_size(self.least)} or more "
                f"(--memory), or use a smaller --dtype{', model or SAEs' if pair else ' or model'}"
            )

    @property
    def stack(self) -> int:
        """All SAEs, loaded."""
        return sum(size.held for size in self.saes)

    @property
    def pair(self) -> int:
        """The two largest SAEs, loaded."""
        return sum(sorted((size.held for size in self.saes), reverse=True)[:2])

    @property
    def loading(self) -> int:
        """The most that reading one SAE takes besides the SAE."""
        return max((size.loading for size in self.saes), default=0)

    @property
    def keeps_all(self) -> bool:
        """Whether every SAE stays loaded; if not, two at a time are."""
        return self.total >= self.least_keeping_all

    @property
    def sae_room(self) -> int:
        """For loaded SAEs."""
        return self.stack if self.keeps_all else self.pair

    @property
    def working(self) -> int:
        """For activations and batches, whatever SAEs are loaded meanwhile."""
        loading = 0 if self.keeps_all else self.loading
        return self.total - self.libraries - self.model - self.sae_room - loading

    @property
    def least(self) -> int:
        """The smallest budget that would do."""
        two_at_a_time = self.libraries + self.model + self.pair + self.loading + LEAST_WORKING
        return min(two_at_a_time, self.least_keeping_all)

    @property
    def least_keeping_all(self) -> int:
        """The smallest budget with which every SAE stays loaded."""
        # SAEs that stay are all read before the run needs its working memory.
        return self.libraries + self.model + self.stack + max(self.loading, LEAST_WORKING)


def memory_budget(memory: str | int | None, device: str = "cpu") -> int:
    """The budget in bytes: as given (`4GiB`, or bytes), else from what the machine has free.

    Raises `SaeGraphsError` where it is no size, or more than the machine has.
    """
    if memory is None:
        return machine_budget(device)
    if isinstance(memory, int) and (memory < 1 or isinstance(memory, bool)):
        raise SaeGraphsError(f"memory {memory!r} is not a size; write for example 4GiB")
    budget = memory if isinstance(memory, int) else parse_size(memory)
    has = _machine(device)[1]
    if budget > has:
        raise SaeGraphsError(
            f"memory {memory if isinstance(memory, str) else format_size(memory)} is more than "
            f"{device} has, {_rounded_down(has)}; give less"
        )
    return budget


def machine_budget(device: str = "cpu") -> int:
    """Four fifths of the memory that is free on the device, in whole MiB."""
    return int(SHARE * _machine(device)[0]) // MIB * MIB


def _machine(device: str) -> tuple[int, int]:
    """Bytes free on the device and in all; on a CPU no more than the process's cgroups allow."""
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info(torch.device(device))
        return int(free), int(total)
    memory = psutil.virtual_memory()
    free, total = int(memory.available), int(memory.total)
    for free_in_group, limit in _cgroups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")):
        free, total = min(free, free_in_group), min(total, limit)
    return max(free, 0), total


def _cgroups(root: Path, own: Path) -> list[tuple[int, int]]:
    """Bytes free and allowed in the control groups around this process that set a limit."""
    found: list[tuple[int, int]] = []
    for folder in _cgroup_folders(root, own):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
        ):
            limit, used = _number(folder / limit_name), _number(folder / used_name)
            if limit is not None and used is not None:
                found.append((limit - used + _reclaimable(folder), limit))
    return found


def _cgroup_folders(root: Path, own: Path) -> list[Path]:
    folders = [root, root / "memory"]
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return folders
    for line in lines:  # such as `0::/user.slice`
        match line.split(":", 2):
            case [_, ("" | "memory") as controller, path]:
                base = root / controller
                group = base / path.lstrip("/")
                folders += [at for at in (group, *group.parents) if base in at.parents]
    return folders


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no file or it says `max`."""
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _reclaimable(folder: Path) -> int:
    """Bytes of cached files, which count as used but are given back on demand."""
    try:
        stat = (folder / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):
        return 0
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", stat, re.MULTILINE)
    return int(found[1]) if found else 0


def _rounded_down(size: int) -> str:
    """For what there is, where rounding up would promise too much."""
    return f"{size // MIB}MiB" if size < 10 * GIB else f"{size * 10 // GIB / 10:g}GiB"
