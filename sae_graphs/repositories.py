"""The files of a repository on the hub, kept by commit: asked for once, and known offline then."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from sae_graphs.errors import HubError
from sae_graphs.files import write_atomically
from sae_graphs.hub import commit_here, file_sizes, listing_of

log = logging.getLogger(__name__)


def files_of_repository(repo_id: str, what: str) -> dict[str, int]:
    """Names and sizes of a repository's files at the commit that is here, else the newest.

    Where they were never asked for and cannot be now, those that are here, with a warning. Raises
    `HubError` where nothing is here either.
    """
    try:
        return listed_once(repo_id, what)
    except HubError:
        here = file_sizes(repo_id)
        if not here:
            raise
        log.warning("of %s only what is here is known; there may be more on the hub", repo_id)
        return here


def listed_once(repo_id: str, what: str) -> dict[str, int]:
    """The same, raising `HubError` where the hub cannot be asked and was not before."""
    commit = commit_here(repo_id)
    kept = None if commit is None else _kept(_file(repo_id, commit))
    if kept is not None:
        return kept
    sizes, commit = listing_of(repo_id, what)
    if commit is not None:
        _keep(_file(repo_id, commit), sizes)
    return sizes


def _file(repo_id: str, commit: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sae_graphs" / "repositories" / repo_id.replace("/", "--") / f"{commit}.json"


def _kept(file: Path) -> dict[str, int] | None:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): int(size) for name, size in held.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _keep(file: Path, sizes: dict[str, int]) -> None:
    try:
        write_atomically(file, (json.dumps(sizes, indent=1) + "\n").encode("ascii"))
    except OSError as problem:
        log.info("%s cannot be kept: %s", file, problem.strerror)
