"""What a run needs from the hub: found before anything is fetched, shown, checked, then fetched.

A model or a stack that is here as a whole asks the network nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sae_graphs.errors import HubError
from sae_graphs.model.memory import SAESize, format_size
from sae_graphs.model.shelf import HubFile, SAESource
from sae_graphs.pretrained.hub import (
    Report,
    cache_folder,
    check_disk,
    fetch,
    is_offline,
    missing,
    missing_words,
)
from sae_graphs.pretrained.listing import listing
from sae_graphs.pretrained.models import files_of_model, is_whole, tensors_to_fetch, weights_here
from sae_graphs.pretrained.sizes import StoredTensor


@dataclass(frozen=True)
class Fetch:
    """Files to fetch: a model's, and a stack's. Either may be none.

    `tensors` are the model's, where its files on the hub tell; `sae_size` what one SAE that is not
    here takes.
    """

    model: str
    stack: str
    model_files: tuple[HubFile, ...] = ()
    sae_files: tuple[HubFile, ...] = ()
    n_saes: int = 0
    tensors: tuple[StoredTensor, ...] = ()
    sae_size: SAESize | None = None

    @property
    def files(self) -> tuple[HubFile, ...]:
        """All of them, the model's first."""
        return (*self.model_files, *self.sae_files)

    @property
    def words(self) -> str:
        """`fetching the model gpt2 (523MiB) and 13 SAEs of gpt2-small-res-jb (1.8GiB) into ...`."""
        parts = []
        if self.model_files:
            parts.append(f"the model {self.model} ({_size(self.model_files)})")
        if self.sae_files:
            parts.append(f"{self.n_saes} SAEs of {self.stack} ({_size(self.sae_files)})")
        return f"fetching {' and '.join(parts)} into {cache_folder()}"


SMALL = 2**20  # bytes: configurations and tokenizers, mostly
Fetching = Callable[[Fetch, int | None], AbstractContextManager[Report | None]]


def plan_fetch(model: str, stack: str, sources: Sequence[SAESource], *, local: bool) -> Fetch:
    """What is missing of a model (none of a `local` one) and of a stack's SAEs.

    Raises `HubError` in one line where something does not exist, may not be had, or is not here
    and there is no network to fetch it by.
    """
    model_files: tuple[HubFile, ...] = ()
    tensors: tuple[StoredTensor, ...] = ()
    if not local and not is_whole(model):
        files = _files_of_model(model)
        model_files = missing(files)
        tensors = tuple(tensors_to_fetch(model, files)) if model_files else ()
    lacking = [source for source in sources if missing(source.files)]
    if not lacking:
        return Fetch(model, stack, model_files, tensors=tensors)
    _refuse_offline(f"{lacking[0].name}")
    sizes = listing(lacking[0].files[0].repo_id, f"SAEs {stack}")
    return Fetch(
        model,
        stack,
        model_files,
        tuple(file for source in lacking for file in _sized(source, sizes)),
        len(lacking),
        tensors,
        _expected_size(lacking[0], sizes),
    )


def run_fetch(
    plan: Fetch, report: Report | None = None, *, check: Callable[[], None] | None = None
) -> None:
    """Fetch the files of a plan: small ones first, then `check` is called, then the large ones.

    So a repository that is not open to the user, or SAEs that `check` refuses, cost little. Raises
    `HubError` where the disk or the network does not let it. What has been fetched stays, and the
    same again goes on from there.
    """
    check_disk(plan.files)
    files = sorted(plan.files, key=lambda file: file.size or 0)
    small = [file for file in files if (file.size or 0) < SMALL]
    done, total = (sum(file.size or 0 for file in some) for some in (small, files))
    first = None if report is None else (lambda at, _: report(at, total))
    second = None if report is None else (lambda at, _: report(done + at, total))
    what = f"model {plan.model!r}" + (f" with SAEs {plan.stack}" if plan.stack else "")
    fetch(small, what, first)
    if check is not None:
        check()
    fetch(files[len(small) :], what, second)


def _files_of_model(model: str) -> tuple[HubFile, ...]:
    """The files of a model; none where it is here as far as is known, and the hub does not say."""
    try:
        _refuse_offline(f"model {model!r}")
        return files_of_model(model)
    except HubError:
        if weights_here(model):  # by another tool, or of a model that has no more
            return ()
        raise


def _refuse_offline(what: str) -> None:
    if is_offline():
        raise HubError(
            f"{what} is not in the cache {cache_folder()}, and HF_HUB_OFFLINE forbids fetching it; "
            "unset that once, with a network, or give local folders"
        )


def _sized(source: SAESource, sizes: dict[str, int]) -> list[HubFile]:
    """The files of an SAE that are not here, small ones first, with their sizes on the hub."""
    lacking = missing(source.files)
    gone = [file.name for file in lacking if file.name not in sizes]
    if gone:
        raise HubError(missing_words(source.name, lacking[0].repo_id, gone))
    extra = [file for file in missing(source.optional) if file.name in sizes]
    found = [HubFile(file.repo_id, file.name, sizes[file.name]) for file in (*extra, *lacking)]
    return sorted(found, key=lambda file: file.size or 0)


def _expected_size(source: SAESource, sizes: dict[str, int]) -> SAESize | None:
    if source.size_to_fetch is None:
        return None
    return source.size_to_fetch({file.name: sizes.get(file.name, 0) for file in source.files})


def _size(files: Sequence[HubFile]) -> str:
    return format_size(sum(file.size or 0 for file in files))
