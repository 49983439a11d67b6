"""The evaluation of SmolLM2's SAEs as tables, and what it misses of what was asked."""

from __future__ import annotations

from statistics import median
from typing import Any

from training.smollm2.plan import LEAST_RECOVERED, MEDIAN_FVU, MOST_DEAD, MOST_FVU, MOST_L0

PROTOCOL = (
    "On text that was held out, in rows of {context} tokens without BOS; the first position of a "
    "row, and those whose norm is an outlier's, are left out, as in training. FVU = "
    "sum |x - x_hat|^2 / sum |x - mean x|^2. CE recovered = (CE_zero - CE_sae) / (CE_zero - "
    "CE_clean), where the stream at that place is zeros or the SAE's output. Dead: never active on "
    "those tokens."
)


def layer_rows(report: dict[str, Any]) -> list[list[str]]:
    """Header, targets and one row per SAE, as strings."""
    rows = [
        ["SAE", "FVU", "L0", "dead", "CE clean", "CE through the SAE", "CE recovered"],
        [
            "target",
            f"<= {MEDIAN_FVU} (median), <= {MOST_FVU}",
            f"<= {MOST_L0:.0f}",
            f"<= {MOST_DEAD:.0f} %",
            "",
            "",
            f">= {LEAST_RECOVERED}",
        ],
    ]
    for item in report["layers"]:
        rows.append(
            [
                item["hook_name"],
                f"{item['fvu']:.4f}",
                f"{item['l0']:.2f}",
                f"{item['dead_percent']:.2f} %",
                f"{item['ce_clean']:.3f}",
                f"{item['ce_sae']:.3f}",
                f"{item['ce_recovered']:.4f}",
            ]
        )
    return rows


def kind_rows(report: dict[str, Any]) -> list[list[str]]:
    """Header and one row per SAE: FVU and recovered cross-entropy on each kind of text."""
    kinds = sorted({kind for item in report["layers"] for kind in item["kinds"]})
    rows = [["SAE", *(f"{kind}: FVU, recovered" for kind in kinds)]]
    for item in report["layers"]:
        rows.append([item["hook_name"], *(_kind(item["kinds"].get(kind)) for kind in kinds)])
    return rows


def shortfalls(report: dict[str, Any]) -> list[str]:
    """One line for every number that misses its target."""
    layers = report["layers"]
    middle = median(item["fvu"] for item in layers)
    lines = []
    if middle > MEDIAN_FVU:
        lines.append(f"the median SAE: FVU {middle:.3f}, target {MEDIAN_FVU}")
    for item in layers:
        missed = (
            ("FVU", item["fvu"], item["fvu"] > MOST_FVU, MOST_FVU),
            ("L0", item["l0"], item["l0"] > MOST_L0, MOST_L0),
            ("dead %", item["dead_percent"], item["dead_percent"] > MOST_DEAD, MOST_DEAD),
            (
                "CE recovered",
                item["ce_recovered"],
                item["ce_recovered"] < LEAST_RECOVERED,
                LEAST_RECOVERED,
            ),
        )
        lines += [
            f"{item['hook_name']}: {name} {value:.4g}, target {target:g}"
            for name, value, is_missed, target in missed
            if is_missed
        ]
    return lines


def _kind(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    recovered = found["ce_recovered"]
    return f"{found['fvu']:.3f}" + ("" if recovered is None else f", {recovered:.3f}")
