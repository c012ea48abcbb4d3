"""Names of a recipe that become files and folders of a run, and words that a user meant."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator

from vold.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
LONGEST = 100
"""Characters of a name: file systems take 255 bytes, and endings are put behind it."""
OURS = (".json", ".jsonl", ".html", ".yaml", ".tmp", ".old", ".lock")
"""Endings of files that the project writes beside the folders of these names."""
_WORDS = {"gpu": "cuda", "fp32": "float32", "bf16": "bfloat16"}
"""What other tools call some values."""

Named = TypeVar("Named", bound="Mapping[str, object]")


def file_name(name: str) -> str:
    """A name that can stand in a path, as it is.

    Raises:
        ConfigError: it could leave the run's directory, or hit a file of the run's own.

    Example:
        >>> file_name("mmmu_pro.vision-10")
        'mmmu_pro.vision-10'
    """
    why = ""
    if not name:
        why = "it is empty"
    elif len(name) > LONGEST:
        why = f"it has {len(name)} characters, at most {LONGEST} are taken"
    elif not _PATTERN.fullmatch(name):
        why = "only letters a to z, digits, and `.`, `_`, `+` and `-` behind the first of them, are taken"
    elif name.lower().endswith(OURS):
        why = f"the run's own files end in {name[name.rindex('.') :]}"
    if why:
        shown = repr(name if len(name) <= LONGEST else f"{name[:LONGEST]}...")
        raise ConfigError(
            "this name becomes a file of the run and cannot be used", got=f"{shown}: {why}", fix=_fix(name)
        )
    return name


def path_name(name: str) -> str:
    """The name of a model on a server, whose parts between slashes become folders, as it is.

    Raises:
        ConfigError: see `file_name`; a colon is taken too.
    """
    for part in name.split("/"):
        file_name(part.replace(":", "-"))
    return name


def no_twins(named: Named) -> Named:
    """A mapping by names that differ by more than capitals, as it is: some file systems do not tell those apart.

    Raises:
        ConfigError: two names are one.
    """
    seen: dict[str, str] = {}
    for name in named:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise ConfigError(
                "two names differ in capitals alone, which some file systems do not tell apart",
                got=f"{other!r} and {name!r}",
                fix="rename one of them",
            )
    return named


Name = Annotated[str, AfterValidator(file_name)]
"""A key that becomes the name of a file or folder."""


def close_to(value: object, known: Iterable[str]) -> str | None:
    """The known word that was probably meant; capitals do not matter.

    Example:
        >>> close_to("Correct", ["all", "correct"]), close_to("gpu", ["cpu", "cuda"]), close_to("x", ["all"])
        ('correct', 'cuda', None)
    """
    text = str(value).strip().casefold()
    words = {word.casefold(): word for word in known}
    if _WORDS.get(text) in words:
        return words[_WORDS[text]]
    found = difflib.get_close_matches(text, words, n=1, cutoff=0.5)
    return words[found[0]] if found else None


def _fix(name: str) -> str:
    tidy = re.sub(r"[^A-Za-z0-9._-]+", "_", name[:LONGEST]).strip("._-")
    while tidy.lower().endswith(OURS):
        tidy = tidy[: tidy.rindex(".")]
    return f"call it {tidy!r}, say" if _PATTERN.fullmatch(tidy) else "call it 'main', say"
