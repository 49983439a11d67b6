"""GGUF files: converted once into a folder that transformers and everything here reads.

The converted folder is kept in the cache, named by the file's digest: weights in float32, whatever
the file holds them in, its configuration and its tokenizer. It is made beside its place and moved
there in one step, under a lock: a conversion that was stopped leaves nothing, and begins anew.
Sizes are in bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sae_graphs.errors import ModelLoadError, SaeGraphsError
from sae_graphs.files import locked, write_atomically
from sae_graphs.model.memory import format_size
from sae_graphs.pretrained.fetching import Fetch, Fetching

log = logging.getLogger(__name__)

SUFFIX = ".gguf"
RECORD = "converted.json"  # what the folder was made from, and its files
EXTRA = "sae-graphs[real]"
MARGIN = 2**27  # of the disk that converting leaves free
DRAFT = ".draft-"
_READ_AT_ONCE = 2**22


@dataclass(frozen=True)
class Conversion(Fetch):
    """A GGUF file, the folder it becomes, and how large its weights are in float32.

    It is told of as what is fetched is: in `words`, before it is done.
    """

    file: Path = Path()
    digest: str = ""
    folder: Path = Path()
    n_bytes: int = 0

    @property
    def words(self) -> str:
        """`converting model.gguf (94MiB) into ... (514MiB), once`."""
        stored = format_size(self.file.stat().st_size)
        return (
            f"converting {self.file.name} ({stored}) into {self.folder} "
            f"({format_size(self.n_bytes)}), once"
        )


def is_gguf(source: str | Path) -> bool:
    """Whether a model's name is that of a GGUF file."""
    return str(source).lower().endswith(SUFFIX)


def conversion_of(file: str | Path) -> Conversion:
    """What converting a GGUF file takes; only its header and its digest are read.

    Raises `ModelLoadError` where there is no such file, it is no GGUF, or the package that reads
    GGUF is not installed.
    """
    at = Path(file).expanduser()
    if not at.is_file():
        raise ModelLoadError(f"there is no file {file}; expected a GGUF file with a language model")
    digest = _digest_of(at)
    return Conversion(
        model=str(file),
        stack="",
        file=at,
        digest=digest,
        folder=cache_folder() / f"{at.stem}-{digest[:16]}",
        n_bytes=_bytes_in(at),
    )


def made_folder(file: str | Path, fetching: Fetching | None = None) -> Conversion:
    """A conversion that is done: now, or earlier. `fetching` is told of it first (see `load`)."""
    conversion = conversion_of(file)
    if is_converted(conversion):
        return conversion
    if fetching is None:
        log.info(conversion.words)
        convert(conversion)
    else:
        with fetching(conversion, None):
            convert(conversion)
    return conversion


def is_converted(conversion: Conversion) -> bool:
    """Whether the folder is here, with all its files as they were written.

    A file whose time has changed since is read and compared by its digest.
    """
    try:
        record = json.loads((conversion.folder / RECORD).read_text(encoding="utf-8"))
        if record["source_sha256"] != conversion.digest:
            return False
        return all(_unchanged(conversion.folder / n, at) for n, at in record["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def convert(conversion: Conversion) -> Path:
    """Have the folder; does nothing where it is here, and waits where another process makes it.

    Raises `ModelLoadError` where the disk is too small, or transformers cannot read the file.
    """
    folder = conversion.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
            if not is_converted(conversion):
                _check_disk(conversion)
                with _draft_of(folder) as draft:
                    _write(conversion, draft)
                    shutil.rmtree(folder, ignore_errors=True)
                    draft.rename(folder)
    except OSError as problem:
        raise ModelLoadError(
            f"cannot write {folder}: {problem.strerror or problem}; XDG_CACHE_HOME moves the cache"
        ) from problem
    return folder


def cache_folder() -> Path:
    """`sae_graphs/gguf` in the user's cache, which `XDG_CACHE_HOME` may move."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sae_graphs" / "gguf"


# -- the file --------------------------------------------------------------------------------------


def _digest_of(file: Path) -> str:
    """A file's SHA-256; kept, so that a file that has not changed is read once."""
    at = file.resolve().stat()
    name = hashlib.sha256(
        f"{file.resolve()}\0{at.st_size}\0{at.st_mtime_ns}".encode("utf-8", "surrogateescape")
    ).hexdigest()
    kept = cache_folder() / "digests" / name[:32]
    with suppress(OSError, UnicodeDecodeError):
        digest = kept.read_text(encoding="ascii")
        if len(digest) == 64:
            return digest
    digest = sha256(file)
    with suppress(OSError):
        write_atomically(kept, digest.encode("ascii"))
    return digest


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises `ModelLoadError` where it cannot be read."""
    found = hashlib.sha256()
    try:
        with file.open("rb") as opened:
            while piece := opened.read(_READ_AT_ONCE):
                found.update(piece)
    except OSError as problem:
        raise ModelLoadError(f"cannot read {file}: {problem.strerror}") from problem
    return found.hexdigest()


def _bytes_in(file: Path) -> int:
    """What the weights in a GGUF file take in float32, by its header."""
    try:
        from gguf import GGUFReader
    except ImportError as problem:
        raise ModelLoadError(
            f"{file} is a GGUF file, and the package that reads these is not installed; "
            f"pip install '{EXTRA}' (or gguf)"
        ) from problem
    try:
        tensors = GGUFReader(file).tensors
        return sum(4 * int(tensor.n_elements) for tensor in tensors)
    except Exception as problem:  # a damaged header fails in a dozen ways
        raise ModelLoadError(
            f"{file} cannot be read as GGUF ({_line(problem)}); fetch it again, or give another"
        ) from problem


# -- the folder ------------------------------------------------------------------------------------


def _unchanged(file: Path, told: dict[str, Any]) -> bool:
    at = file.stat()
    if at.st_size != told["bytes"]:
        return False
    return at.st_mtime_ns == told["mtime_ns"] or sha256(file) == told["sha256"]


def _check_disk(conversion: Conversion) -> None:
    free = shutil.disk_usage(conversion.folder.parent).free
    if conversion.n_bytes + MARGIN > free:
        raise ModelLoadError(
            f"{format_size(conversion.n_bytes)} do not fit on the disk of "
            f"{conversion.folder.parent}, which has {format_size(free)} free; free some, or set "
            "XDG_CACHE_HOME to a folder on a larger disk"
        )


@contextmanager
def _draft_of(folder: Path) -> Iterator[Path]:
    """A new folder beside one, gone afterwards unless it was moved; older drafts go, too."""
    for left in folder.parent.glob(f"{DRAFT}{folder.name}-*"):  # of a conversion that was killed
        shutil.rmtree(left, ignore_errors=True)
    draft = folder.with_name(f"{DRAFT}{folder.name}-{uuid.uuid4().hex}")
    draft.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(conversion: Conversion, draft: Path) -> None:
    """Model and tokenizer as transformers reads them from the file, and the record of all files."""
    model, tokenizer = _read(conversion.file)
    model.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    files = {}
    for file in sorted(path for path in draft.iterdir() if path.is_file()):
        at = file.stat()
        files[file.name] = {
            "bytes": at.st_size,
            "mtime_ns": at.st_mtime_ns,
            "sha256": sha256(file),
        }
    record = {
        "source": conversion.file.name,
        "source_sha256": conversion.digest,
        "source_bytes": conversion.file.stat().st_size,
        "files": files,
    }
    write_atomically(draft / RECORD, json.dumps(record, indent=2).encode("utf-8"))


def _read(file: Path) -> tuple[Any, Any]:
    """The model, in float32 and as if it had never been quantized, and its tokenizer."""
    import torch
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    given = {"gguf_file": file.name, "local_files_only": True}
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(file.parent), dtype=torch.float32, **given
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(file.parent), **given)
    except Exception as problem:  # formats and architectures that it does not know
        raise ModelLoadError(
            f"{file} cannot be converted ({_line(problem)}); expected a GGUF file that "
            "transformers reads"
        ) from problem
    finally:
        transformers.logging.set_verbosity(verbosity)
    if tokenizer is None:
        raise SaeGraphsError(f"{file} holds no tokenizer; expected one beside the weights")
    model.hf_quantizer = None  # else saving is refused; its weights are plain ones by now
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def _line(problem: Exception) -> str:
    return (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
