"""Budgets: sizes as people write them, what a budget is spent on, what the machine has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sae_graphs.errors import SaeGraphsError
from sae_graphs.model import memory as memory_module
from sae_graphs.model.memory import (
    GIB,
    MIB,
    MemoryPlan,
    SAESize,
    format_size,
    machine_budget,
    memory_budget,
    parse_size,
)
from sae_graphs.pretrained.sizes import tensor_sizes
from tests.support.stacks import one_line

# -- sizes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("4gib", 4 * 2**30),
        ("4 GiB", 4 * 2**30),
        ("  512MiB ", 512 * 2**20),
        ("8KiB", 8192),
        ("1TiB", 2**40),
        ("1.5GiB", 1_610_612_736),
        (".5GiB", 536_870_912),
        ("2.GiB", 2**31),
        ("4GB", 4_000_000_000),
        ("250MB", 250_000_000),
        ("3kb", 3000),
        ("0.1TB", 100_000_000_000),  # exact, as no float is
        ("123456B", 123_456),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "4", "4096", "GiB", "-1GiB", "4G", "4 iB", "4GiBs", "1e9B", "4,5GiB", "nanGiB", "infGiB",
     "4GiB 2MiB", "0x4GiB", "four GiB", "٤GiB", "4\nGiB x", "0GiB", "0.1B", "1PiB"],
)  # fmt: skip
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(SaeGraphsError) as caught:
        parse_size(text)
    line = one_line(caught)
    assert repr(text) in line
    assert "4GiB" in line  # what would be


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "1MiB"),
        (2**20, "1MiB"),
        (2**20 + 1, "2MiB"),
        (4 * 2**30, "4096MiB"),
        (10 * 2**30, "10GiB"),
        (10 * 2**30 + 1, "10.1GiB"),
        (25 * 2**29, "12.5GiB"),
    ],
)
def test_sizes_are_rounded_up(size: int, text: str) -> None:
    assert format_size(size) == text
    assert size <= parse_size(text)


# -- plans -----------------------------------------------------------------------------------------

# Libraries 640 MiB, model 500 MiB, three SAEs of 100, 300 and 200 MiB, working at least 256 MiB.
SAES = (SAESize(100 * MIB), SAESize(300 * MIB), SAESize(200 * MIB))


def plan(total: int, saes: tuple[SAESize, ...] = SAES) -> MemoryPlan:
    return MemoryPlan(total * MIB, 500 * MIB, saes)


def test_a_budget_that_keeps_all() -> None:
    assert (memory_module.LIBRARIES, memory_module.LEAST_WORKING) == (640 * MIB, 256 * MIB)
    just = plan(640 + 500 + 600 + 256)
    assert just.keeps_all
    assert just.sae_room == 600 * MIB
    assert just.working == 256 * MIB
    assert plan(10_000).working == (10_000 - 640 - 500 - 600) * MIB


def test_a_budget_that_keeps_two() -> None:
    below = plan(640 + 500 + 600 + 255)
    assert not below.keeps_all
    assert below.sae_room == 500 * MIB
    assert below.working == (600 + 255 - 500) * MIB  # the two largest, whichever are loaded
    assert below.least_keeping_all == (640 + 500 + 600 + 256) * MIB


def test_what_converting_takes() -> None:
    """Weights in memory twice while another SAE stays: it is taken off the working memory."""
    converted = tuple(SAESize(size.held, loading=50 * MIB) for size in SAES)
    two = plan(640 + 500 + 500 + 50 + 256, converted)
    assert not two.keeps_all
    assert two.working == 256 * MIB
    with pytest.raises(SaeGraphsError, match="give 1946MiB"):
        plan(1945, converted)
    # SAEs that all stay are read before the run: the larger of reading and working counts.
    twice = tuple(SAESize(size.held, loading=2 * size.held) for size in SAES)
    all_three = plan(640 + 500 + 600 + 600, twice)
    assert all_three.keeps_all
    assert all_three.working == 600 * MIB
    with pytest.raises(SaeGraphsError, match="give 2340MiB"):
        plan(2339, twice)


def test_the_least_budget_does() -> None:
    least = 640 + 500 + 500 + 256
    assert plan(least).working == 256 * MIB
    with pytest.raises(SaeGraphsError) as caught:
        plan(least - 1)
    line = one_line(caught)
    assert line.startswith("1895MiB of memory is too little")
    assert "give 1896MiB or more" in line
    for part in ("libraries take 640MiB", "model 500MiB", "SAEs 500MiB", "at least 256MiB"):
        assert part in line


@pytest.mark.parametrize("extra", [1, MIB - 1, 12_345_678, 11 * GIB + 7])
def test_the_budget_that_is_named_does(extra: int) -> None:
    """Odd sizes: what the message says is rounded up, never down."""
    saes = (*SAES, SAESize(extra, loading=3))
    with pytest.raises(SaeGraphsError) as caught:
        MemoryPlan(MIB, extra, saes)
    named = one_line(caught).split("; give ")[1].split(" or more")[0]
    assert MemoryPlan(parse_size(named), extra, saes).working >= 256 * MIB


def test_two_saes_are_all() -> None:
    two = plan(640 + 500 + 500 + 256, SAES[1:])
    assert two.keeps_all
    assert two.least == two.least_keeping_all


# -- machines --------------------------------------------------------------------------------------


def test_budgets_given() -> None:
    assert memory_budget("64MiB") == memory_budget(64 * MIB) == 64 * MIB
    for wrong in (0, -5, True):
        with pytest.raises(SaeGraphsError, match="not a size"):
            memory_budget(wrong)
    for much in ("900TiB", 900 * 2**40):
        with pytest.raises(SaeGraphsError, match="is more than cpu has") as caught:
            memory_budget(much)
        assert "TiB" in one_line(caught) or "GiB" in one_line(caught)


def test_four_fifths_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_machine", lambda device: (10 * GIB, 16 * GIB))
    assert machine_budget() == memory_budget(None) == 8 * GIB
    assert memory_budget("16GiB") == 16 * GIB  # given: the user may know what will be free
    with pytest.raises(SaeGraphsError, match="more than cpu has, 16GiB; give less"):
        memory_budget("16.1GiB")


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


def test_control_groups_limit_the_machine(tmp_path: Path) -> None:
    """Version 2: the process's own group and those around it; cached files are given back."""
    own = tmp_path / "cgroup"
    own.write_text("0::/user/run\n")
    root = tmp_path / "fs"
    group(root / "user", memory_max="1000\n", memory_current="900\n",
          memory_stat="anon 5\ninactive_file 300\n")  # fmt: skip
    group(root / "user/run", memory_max="max\n", memory_current="100\n")
    assert memory_module._cgroups(root, own) == [(400, 1000)]
    group(root / "user/run", memory_max="700\n")
    assert memory_module._cgroups(root, own) == [(600, 700), (400, 1000)]


def test_older_control_groups(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("5:cpu:/\n4:memory:/box\n")
    box = tmp_path / "fs/memory/box"
    box.mkdir(parents=True)
    (box / "memory.limit_in_bytes").write_text("500")
    (box / "memory.usage_in_bytes").write_text("200")
    assert memory_module._cgroups(tmp_path / "fs", own) == [(300, 500)]


def test_machines_without_control_groups(tmp_path: Path) -> None:
    assert memory_module._cgroups(tmp_path / "none", tmp_path / "nothing") == []
    assert 0 < machine_budget() < 2**50


# -- headers ---------------------------------------------------------------------------------------


def test_sizes_from_headers(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    tensors = {
        "matrix": torch.zeros(3, 5),
        "half": torch.zeros(7, dtype=torch.bfloat16),
        "index": torch.zeros(2, dtype=torch.int64),
    }
    save_file(tensors, file, metadata={"format": "pt"})
    assert tensor_sizes([file], "float32") == {
        "matrix": (60, 60, False),
        "half": (14, 28, True),
        "index": (16, 16, False),
    }
    other = tmp_path / "other.safetensors"
    save_file({"other": torch.zeros(2, 2), "scalar": torch.zeros(())}, other)
    both = tensor_sizes([file, other], "float64")
    assert both is not None
    loaded = {name: size.loaded for name, size in both.items()}
    assert loaded == {"matrix": 120, "half": 56, "index": 16, "other": 32, "scalar": 8}
    assert tensor_sizes([], "float32") == {}


def test_headers_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    assert tensor_sizes([file], "float32") is None
    header = json.dumps({"a": {"dtype": "F32"}}).encode()
    for content in (b"", b"{", b"\xff" * 20, len(header).to_bytes(8, "little") + header):
        file.write_bytes(content)
        assert tensor_sizes([file], "float32") is None
