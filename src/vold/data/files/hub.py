"""Data sets on the hub: which files, of which commit, and whether all of them are there."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vold.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_COMMIT = re.compile("[0-9a-f]{40}")
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)")


def shard_patterns(config: str | None, split: str) -> list[str]:
    """Where the files of a config and split lie in the usual forms of a repository.

    Example:
        >>> shard_patterns(None, "test")
        ['data/test-*.parquet', 'test-*.parquet', 'test.jsonl']
    """
    folders = {f"{config}/" if config else "", "data/", f"{config}/data/" if config else ""}
    plain = f"{config}/{split}.jsonl" if config else f"{split}.jsonl"
    return sorted([*(f"{folder}{split}-*.parquet" for folder in folders), plain])


def hub_files(repo: str, patterns: Sequence[str], *, revision: str | None) -> tuple[Path, str]:
    """Download the files of a data set that match a pattern; returns their folder and the commit they are of.

    The folder may hold files of earlier downloads that match none. A whole commit that lies here complete is taken
    without asking the hub.

    Raises:
        DataError: the hub cannot be reached, has no such data, or not all of it arrived.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if revision and _COMMIT.fullmatch(revision):
        with contextlib.suppress(LocalEntryNotFoundError):
            known = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
            if not missing(known, patterns):
                return known, revision
    try:
        commit = HfApi().dataset_info(repo, revision=revision).sha or ""
        local = snapshot_download(repo, repo_type="dataset", revision=commit or revision, allow_patterns=[*patterns])
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            "the hub cannot be reached, or has no such data",
            where=f"hub dataset {repo}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="download it elsewhere and give its `path`, or set HF_TOKEN for a gated set",
        ) from None
    if lost := missing(Path(local), patterns):  # an outage in between leaves a part behind, without an error
        raise DataError(
            "not all files of this set are here",
            where=f"hub dataset {repo} at {commit}",
            got=f"missing: {', '.join(lost[:3])}",
            fix="try again, or download it elsewhere and give its `path`",
        )
    return Path(local), commit


def missing(folder: Path, patterns: Sequence[str]) -> list[str]:
    """What a folder lacks of a data set: a match of some table's pattern and of every archive's, and shards by the
    count in their names. [] if it is complete.
    """
    there = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    archives = [p for p in patterns if p.endswith(".zip")]
    tables = [p for p in patterns if p not in archives]
    found = set(_matching(there, tables))
    lost = [] if found else [" or ".join(tables)]
    lost += [p for p in archives if not _matching(there, [p])]
    for shard in (m for name in sorted(found) if (m := _SHARD.fullmatch(name))):
        stem, digits, count, end = shard[1], len(shard[2]), int(shard[3]), shard[4]
        names = (f"{stem}-{k:0{digits}d}-of-{shard[3]}{end}" for k in range(count))
        lost += [n for n in names if n not in there and n not in lost]
    return lost


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
