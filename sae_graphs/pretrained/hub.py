"""The Hugging Face hub: what a repository holds, what is here already, and fetching the rest.

Everything is fetched before it is loaded: `fetch` asks the network, and what follows runs
`offline`, so that loading needs no network, fails at no other place, and can be repeated.
Sizes are in bytes. Torch is not needed.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sae_graphs.errors import HubError, quoted
from sae_graphs.model.memory import format_size
from sae_graphs.model.shelf import HubFile
from sae_graphs.pretrained import download as resumable

SITE = "https://huggingface.co"
MARGIN = 2**28  # bytes of a disk that fetching leaves free

Report = Callable[[int, int], None]  # bytes done, bytes in all


def cached(repo_id: str, name: str) -> Path | None:
    """Where a file lies that has been fetched before; None where it has not."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(repo_id, name)
    except ValueError:  # not a name that the hub could know
        return None
    return Path(found) if isinstance(found, str) else None


def commit_here(repo_id: str) -> str | None:
    """The commit of a repository that is here; None where nothing of it is.

    Files are fetched at that commit, so that those of one repository always belong together.
    """
    try:
        commit = (_folder_of(repo_id) / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit or None


def cached_files(repo_id: str) -> tuple[str, ...]:
    """The names of all files of a repository that are here."""
    snapshot = _folder_of(repo_id) / "snapshots" / (commit_here(repo_id) or "none")
    try:
        return tuple(
            sorted(f.relative_to(snapshot).as_posix() for f in snapshot.rglob("*") if f.is_file())
        )
    except OSError:
        return ()


def _folder_of(repo_id: str) -> Path:
    from huggingface_hub.file_download import repo_folder_name

    return cache_folder() / repo_folder_name(repo_id=repo_id, repo_type="model")


def file_sizes(repo_id: str) -> dict[str, int]:
    """Names and sizes of the files of a repository that are here."""
    found = {name: cached(repo_id, name) for name in cached_files(repo_id)}
    return {name: at.stat().st_size for name, at in found.items() if at is not None}


def is_offline() -> bool:
    """Whether the user asked for no network (`HF_HUB_OFFLINE=1`)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


@contextmanager
def offline() -> Iterator[None]:
    """No request to the hub: what is loaded here comes from the cache."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cache_folder() -> Path:
    """Where fetched files are kept."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


# -- fetching --------------------------------------------------------------------------------------


def missing(files: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """Those that are not here yet."""
    return tuple(file for file in files if cached(file.repo_id, file.name) is None)


def check_disk(files: Sequence[HubFile]) -> None:
    """Raise `HubError` where the disk cannot hold the files."""
    needed = sum(file.size or 0 for file in files)
    parts = [at for repo in {f.repo_id for f in files} for at in _folder_of(repo).rglob("*.part")]
    needed -= min(sum(at.stat().st_size for at in parts), needed)  # half here already
    folder = cache_folder().absolute()
    existing = next(at for at in (folder, *folder.parents) if at.exists())
    free = shutil.disk_usage(existing).free
    if needed + MARGIN > free:
        raise HubError(
            f"{format_size(needed)} to fetch do not fit on the disk of {folder}, which has "
            f"{format_size(free)} free; free some, or set HF_HOME to a folder on a larger disk"
        )


def fetch(files: Sequence[HubFile], what: str, report: Report | None = None) -> None:
    """Fetch files, one after the other, in the order given; what is half here is gone on with.

    `report` is told the bytes done and in all; without it the hub's own bars are shown. Raises
    `HubError` in one line.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    total = sum(file.size or 0 for file in files)
    done = 0
    for file in files:
        bar = None if report is None else _bar(report, done, total)
        try:
            with _quiet():
                try:
                    _fetch_one(file, commit_here(file.repo_id), bar)
                except RevisionNotFoundError:
                    _fetch_one(file, None, bar)
        except HubError:
            raise
        except Exception as problem:  # a dozen kinds, from several libraries
            raise HubError(problem_words(problem, file.repo_id, what, file.name)) from problem
        done += file.size or 0
        if report is not None:
            report(done, total)


def _fetch_one(file: HubFile, commit: str | None, bar: Any) -> None:
    from huggingface_hub import hf_hub_download

    if (file.size or 0) >= resumable.LEAST_BYTES:
        resumable.fetch_content(file.repo_id, file.name, commit, bar)
    hf_hub_download(file.repo_id, file.name, revision=commit, tqdm_class=bar)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the hub's own words on each of its tries: one line is said at the end."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _bar(report: Report, start: int, total: int) -> Any:
    """A bar for the hub's downloads that shows nothing and tells how far they are."""
    from huggingface_hub.utils import tqdm

    class Told(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self._done = int(options.get("initial") or 0)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            report(min(start + self._done, total), total)

        def update_transfer(self, *_: Any) -> None:
            """Bytes on the wire, which the hub's other protocol counts besides."""

    return Told


# -- what went wrong -------------------------------------------------------------------------------


def problem_words(problem: BaseException, repo_id: str, what: str, name: str | None = None) -> str:
    """One line: what was asked for, what stands in the way, what to do."""
    from huggingface_hub import errors

    file = f"{name} of {repo_id}" if name else repo_id
    asked = what if what.endswith(repr(repo_id)) and not name else f"{what}: {file}"
    match telling(problem):
        case errors.GatedRepoError():
            return (
                f"{what}: {repo_id} is gated; accept its terms on {SITE}/{repo_id}, then set "
                "HF_TOKEN to a token of yours or run `hf auth login`"
            )
        case errors.DisabledRepoError():
            return f"{what}: {repo_id} has been disabled on the hub; use another"
        case errors.RepositoryNotFoundError():
            return (
                f"{what}: the hub knows no {repo_id}, or it is private; check the name, or log in "
                "with `hf auth login`"
            )
        case errors.LocalEntryNotFoundError() | errors.OfflineModeIsEnabled() if is_offline():
            return (
                f"{what}: {file} is not in the cache {cache_folder()}, and HF_HUB_OFFLINE forbids "
                "fetching it; unset that once, with a network"
            )
        case errors.RevisionNotFoundError() | errors.RemoteEntryNotFoundError():
            return missing_words(what, repo_id, [name or "its main branch"])
        case errors.HFValidationError():
            return f"{what}: {repo_id!r} is not the name of a repository; expected owner/name"
        case errors.HfHubHTTPError() as answer if (code := status_of(answer)) is not None:
            if code in (401, 403):
                return f"{what}: the hub refuses {file} ({code}); log in with `hf auth login`"
            if code in (404, 410, 451):
                return f"{what}: the hub has {file} no more ({code}); use another"
            return f"{what}: the hub answers {code} for {file}; wait a little, run the same again"
        case OSError(errno=28 | 122):  # no space, quota
            return f"{what}: the disk of {cache_folder()} is full; free some, or set HF_HOME"
    return (
        f"{asked} cannot be fetched ({reason_of(problem)}); check the network and run the "
        "same again (what is here is kept), or give local folders"
    )


def telling(problem: BaseException) -> BaseException:
    """The error of the hub's own that stands behind another, if one does."""
    from huggingface_hub import errors

    seen: BaseException | None = problem
    while seen is not None:
        if isinstance(seen, errors.HfHubHTTPError) and status_of(seen) is not None:
            return seen
        seen = seen.__cause__ or seen.__context__
    return problem


def missing_words(what: str, repo_id: str, names: Sequence[str]) -> str:
    """Where a repository lacks files that it should have."""
    return (
        f"{what}: {repo_id} has no {quoted(names, 3)}; choose other SAEs (--saes, --sae-pattern), "
        "or put those you want into a folder, one sub-folder per SAE"
    )


def reason_of(problem: BaseException) -> str:
    """The first line of the innermost cause, short."""
    seen = problem
    while (cause := seen.__cause__ or seen.__context__) is not None and cause is not seen:
        seen = cause
    text = next(
        (text for error in (seen, problem) if any(map(str.isalpha, text := str(error).strip()))),
        type(problem).__name__,
    )
    return text.splitlines()[0][:160]


def status_of(problem: BaseException) -> int | None:
    with suppress(AttributeError, TypeError, ValueError):
        return int(problem.response.status_code)  # type: ignore[attr-defined]
    return None
