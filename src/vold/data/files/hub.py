"""Data sets on the hub: which files, of which commit, and whether all of them are there."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from vold.errors import DataError
from vold.run.hub import first_line, hub_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_COMMIT = re.compile("[0-9a-f]{40}")
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?(\.\w+)")
Layout: TypeAlias = tuple[str, ...]
"""A way in which a set lies in its repository: patterns of its files, each of which matches one or more."""


def chosen(names: Iterable[str], layouts: Sequence[Layout]) -> list[str]:
    """The files of the first layout that is there whole, sorted; [] where none is.

    Example:
        >>> chosen(["mmstar.parquet", "MMStar.tsv"], [("data/val-*.parquet",), ("mmstar.parquet",), ("MMStar.tsv",)])
        ['mmstar.parquet']
    """
    there = list(names)
    for layout in layouts:
        if all(_matching(there, [pattern]) for pattern in layout):
            return sorted(_matching(there, layout))
    return []


def chosen_copy(names: Iterable[str], layouts: Sequence[Layout]) -> list[str]:
    """The files of a copy: the whole repository, a folder around it, one of its folders, or a part of its files.

    Sorted; [] where no layout has any file. Never files of two layouts: they would hold the same rows.
    """
    there = list(names)
    for place in (str, lambda pattern: f"*/{pattern}", lambda pattern: pattern.rpartition("/")[2]):
        for layout in layouts:
            if found := _matching(there, [place(pattern) for pattern in layout]):
                return sorted(found)
    return []


def hub_files(repo: str, layouts: Sequence[Layout], *, revision: str | None) -> tuple[Path, str]:
    """Download the files of a data set as one of its layouts names them; returns their folder and their commit.

    The folder may hold files of earlier downloads too. A whole commit that lies here complete is taken without asking
    the hub.

    Raises:
        DataError: the hub cannot be reached, has no such data, or not all of it arrived.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    for layout in layouts if revision and _COMMIT.fullmatch(revision) else ():
        with contextlib.suppress(LocalEntryNotFoundError):
            kept = snapshot_download(
                repo, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=[*layout]
            )
            found = chosen(files_below(Path(kept)), [layout])
            if found and not missing_shards(found):
                return Path(kept), str(revision)
    try:
        about = HfApi().dataset_info(repo, revision=revision)
        commit = about.sha or ""
        wanted = _of_repository(repo, [s.rfilename for s in about.siblings or ()], layouts)
        local = Path(snapshot_download(repo, repo_type="dataset", revision=commit or revision, allow_patterns=wanted))
    except hub_errors() as error:
        raise DataError(
            "the hub cannot be reached, or has no such data",
            where=f"hub dataset {repo}",
            got=first_line(error),
            fix="download it elsewhere and give its `path`, or set HF_TOKEN for a gated set",
        ) from None
    there = set(files_below(local))
    if lost := [name for name in wanted if name not in there] or missing_shards(wanted):
        # an outage in between leaves a part behind, without an error
        raise not_all_here(f"hub dataset {repo} at {commit}", lost)
    return local, commit


def _of_repository(repo: str, names: Sequence[str], layouts: Sequence[Layout]) -> list[str]:
    wanted = chosen(names, layouts)
    if not wanted:
        expected = " or ".join(" with ".join(layout[:3]) for layout in layouts)
        raise DataError(
            "this repository has other files than the set was published with",
            where=f"hub dataset {repo}",
            got=", ".join(sorted(names)[:8]) or "no files",
            fix=f"expected: {expected}; give the `revision` that has them, or download it and give its `path`",
        )
    return wanted


def not_all_here(where: str, lost: Sequence[str]) -> DataError:
    """The error of a set of which files are missing."""
    return DataError(
        "not all files of this set are here",
        where=where,
        got=f"missing: {', '.join(lost[:3])}",
        fix="try again, or download it elsewhere and give its `path`",
    )


def files_below(folder: Path) -> list[str]:
    """Names of the files of a folder, relative to it, without those in hidden folders."""
    names = (f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    return sorted(name for name in names if not name.startswith(".") and "/." not in name)


def missing_shards(names: Sequence[str]) -> list[str]:
    """The shards that are not among these files, by the count in their names.

    Example:
        >>> missing_shards(["data/train-00000-of-00002.parquet"])
        ['data/train-00001-of-00002.parquet']
    """
    lost: list[str] = []
    for shard in (m for name in sorted(names) if (m := _SHARD.fullmatch(name))):
        stem, digits, count, end = shard[1], len(shard[2]), int(shard[3]), shard[4]
        wanted = (f"{stem}-{k:0{digits}d}-of-{shard[3]}" for k in range(count))
        lost += [w + end for w in wanted if w + end not in lost and not any(n.startswith(w) for n in names)]
    return lost


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]
