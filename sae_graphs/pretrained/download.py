"""Fetching one large file from the hub so that a fetch that was stopped goes on where it was.

The hub's own download keeps nothing of a file that did not arrive as a whole. Here its bytes are
kept in the cache, beside where the file will lie; once all are there, the hub's download finds the
file and registers it.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sae_graphs.errors import HubError

LEAST_BYTES = 2**24  # smaller files are fetched again as quickly
_SHA256 = re.compile(r"[0-9a-f]{64}")
_READ_AT_ONCE = 2**22


def fetch_content(repo_id: str, name: str, commit: str | None = None, bar: Any = None) -> None:
    """Have the content of a file in the hub's cache, whole and checked; nothing if it is there.

    `commit` is the newest where it is None; `bar` is a class of progress bars, as
    `hf_hub_download` takes it. Raises what the hub's library raises, and `HubError` where what
    arrived is not what was sent.
    """
    from filelock import FileLock
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import are_symlinks_supported, http_get, repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    if not are_symlinks_supported(constants.HF_HUB_CACHE):
        return  # the file would lie there twice
    url = hf_hub_url(repo_id, name, revision=commit)
    about = get_hf_file_metadata(url)
    etag, size = about.etag, about.size
    if not etag or size is None or size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        return  # the hub's own download knows other ways
    headers = build_hf_headers()
    if urlsplit(about.location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # it is the hub's alone
    repository = repo_folder_name(repo_id=repo_id, repo_type="model")
    content = Path(constants.HF_HUB_CACHE) / repository / "blobs" / etag
    content.parent.mkdir(parents=True, exist_ok=True)
    part = content.with_name(f"{etag}.part")
    with FileLock(f"{part}.lock"):  # two runs at once fetch it once
        if content.exists():
            return
        part.touch()
        if part.stat().st_size > size:
            os.truncate(part, 0)
        with part.open("r+b") as file:
            have = file.seek(0, os.SEEK_END)
            http_get(
                about.location,
                file,
                resume_size=have,
                headers=headers,
                expected_size=size,
                tqdm_class=bar,
            )
        if _SHA256.fullmatch(etag) and _digest(part) != etag:
            part.unlink()
            raise HubError(f"{name} of {repo_id} arrived damaged; run the same again")
        part.replace(content)
    Path(f"{part}.lock").unlink(missing_ok=True)


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(_READ_AT_ONCE):
            found.update(piece)
    return found.hexdigest()
