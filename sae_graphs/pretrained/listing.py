"""The files of a repository on the hub, kept by commit: asked for once, and known offline then."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sae_graphs.errors import HubError
from sae_graphs.files import write_atomically
from sae_graphs.pretrained.hub import commit_here, file_sizes, problem_words, status_of, telling
from sae_graphs.pretrained.sizes import StoredTensor

LISTING_SECONDS = 8.0  # that the hub is given to answer; without a network it takes all of them


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


def listing(repo_id: str, what: str) -> dict[str, int]:
    """Names and sizes of the files of a repository, from the hub: `listing_of` without commit."""
    return listing_of(repo_id, what)[0]


def listing_of(repo_id: str, what: str) -> tuple[dict[str, int], str | None]:
    """Names and sizes of the files of a repository on the hub, and their commit.

    At the commit that is here, if the hub still has it, else the newest. `what` is what the user
    asked for, for the message. Raises `HubError` where it is not there, not open to this user, or
    the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    def ask(commit: str | None) -> Any:
        return HfApi().model_info(
            repo_id, revision=commit, files_metadata=True, timeout=LISTING_SECONDS
        )

    try:
        try:
            info = ask(commit_here(repo_id))
        except RevisionNotFoundError:
            info = ask(None)
    except Exception as problem:  # a dozen kinds, from several libraries
        raise HubError(problem_words(problem, repo_id, what)) from problem
    return {file.rfilename: int(file.size or 0) for file in info.siblings or ()}, info.sha


def is_answer(problem: HubError) -> bool:
    """Whether the hub itself refused something, and was not out of reach or out of order."""
    behind = problem.__cause__
    status = None if behind is None else status_of(telling(behind))
    return status is not None and status < 500 and status != 429


def n_parameters(repo_id: str) -> int | None:
    """How many numbers a model's weights are, as the hub tells; None where it does not."""
    from huggingface_hub import HfApi

    with suppress(Exception):  # a table does without
        info = HfApi().model_info(repo_id, expand=["safetensors"], timeout=LISTING_SECONDS)
        return int(info.safetensors.total) if info.safetensors is not None else None
    return None


def remote_tensors(repo_id: str, names: Sequence[str]) -> tuple[StoredTensor, ...]:
    """The tensors in safetensors files on the hub, by the files' headers.

    Empty where they cannot be had: the files say it once they are here.
    """
    from huggingface_hub import HfApi

    found: list[StoredTensor] = []
    with suppress(Exception):  # an estimate may be done without
        for name in names:
            about = HfApi().parse_safetensors_file_metadata(repo_id, name)
            for tensor, its in about.tensors.items():
                begin, end = its.data_offsets
                found.append(StoredTensor(tensor, its.dtype, tuple(its.shape), end - begin))
        return tuple(found)
    return ()
