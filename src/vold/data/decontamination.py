"""Does a training problem occur in an evaluation set? By its words, by runs of words, and by its pictures.

Words are compared after Unicode compatibility folding, in lower case, without punctuation and LaTeX's signs. Chinese,
Japanese and Korean characters count as a word each.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from vold.data.benchmarks.columns import split_options
from vold.data.benchmarks.registry import load
from vold.data.files.markers import plain
from vold.graders.choice import LETTERS
from vold.run.section import Section

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL.Image import Image


_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")

_HEADINGS = ("", "Choices", "Options")


class EvaluationSet(Section):
    """A benchmark that training must not have seen."""

    name: str | None = None
    """Which benchmark, such as `mathvision`; the key it stands under if absent."""
    path: Path | None = None
    """Where it lies; the hub if absent."""
    split: str | None = None
    """The benchmark's usual split if absent."""
    revision: str | None = None
    """Hub revision."""


class Decontaminate(Section):
    """Problems that an evaluation set asks too are left out of training."""

    against: dict[str, EvaluationSet] = Field(min_length=1)
    """Benchmarks by name."""
    ngram: int = Field(13, ge=4)
    """A problem that shares so many consecutive words with one of them is left out, as is one that has the same words
    or the same picture."""


def normalised_words(text: str) -> list[str]:
    r"""The words of a problem in the form in which they are compared.

    Example:
        >>> normalised_words(r"<image 1> Find $\frac{1}{2}X$; 求解")
        ['find', 'frac', '1', '2x', '求', '解']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", plain(text, " ")).lower())


def pixels(image: Image) -> bytes:
    """A digest of what a picture shows, whatever file it lies in."""
    shown = image.convert("RGB")
    return hashlib.sha256(f"{shown.size}".encode() + shown.tobytes()).digest()[:16]


@dataclass(frozen=True)
class Match:
    """Where a problem was met: the benchmark and item, and by what.

    Example:
        >>> Match("math500", "test/1", "same words").by
        'same words'
    """

    benchmark: str
    item: str
    by: str


class Contamination:
    """An index over evaluation problems.

    Args:
        ngram: how many consecutive words in common make two problems the same.
    """

    def __init__(self, ngram: int) -> None:
        self.ngram = ngram
        self._whole: dict[bytes, tuple[str, str]] = {}
        self._runs: dict[bytes, tuple[str, str]] = {}
        self._pictures: dict[bytes, tuple[str, str]] = {}

    @classmethod
    def of(cls, config: Decontaminate) -> Contamination:
        """The index of the evaluation sets of a recipe.

        Raises:
            ConfigError, DataError: a benchmark that is not known or cannot be read.
        """
        made = cls(config.ngram)
        for key, spec in config.against.items():
            loaded = load(spec.name or key, path=spec.path, split=spec.split, revision=spec.revision)
            for item in loaded.items:
                texts = filter(None, [item.question, item.for_judge])
                made.add(key, item.id, [w for t in texts for w in _wordings(t, item.options)], item.images)
        return made

    def add(self, benchmark: str, item: str, texts: Iterable[str], images: Sequence[Image] = ()) -> None:
        """Add a problem: its wordings and its pictures."""
        for text in texts:
            found = normalised_words(text)
            if found:
                self._whole.setdefault(_digest(found), (benchmark, item))
            for run in self._cut(found):
                self._runs.setdefault(run, (benchmark, item))
        for image in images:
            self._pictures.setdefault(pixels(image), (benchmark, item))

    def find(self, text: str, pictures: Sequence[bytes] = ()) -> Match | None:
        """The evaluation problem that this one is, or None; `pictures` are digests (`pixels`).

        Short words alone ("Find x.") do not identify a problem with a picture: there it takes a run of words, or the
        picture.
        """
        found = normalised_words(text)
        if (hit := self._whole.get(_digest(found))) and (not pictures or len(found) >= self.ngram):
            return Match(*hit, "same words")
        for run in self._cut(found):
            if hit := self._runs.get(run):
                return Match(*hit, f"{self.ngram} words in a row")
        for picture in pictures:
            if hit := self._pictures.get(picture):
                return Match(*hit, "same picture")
        return None

    def _cut(self, found: Sequence[str]) -> Iterable[bytes]:
        return (_digest(found[i : i + self.ngram]) for i in range(len(found) - self.ngram + 1))


def _wordings(text: str, options: Sequence[str]) -> Iterable[str]:
    """A question as it stands, and with its options as others write them: with letters and without, under a heading
    and without. Of a short question only the whole is long enough to be known by."""
    question, found = (text, options) if options else split_options(text)
    lettered = [f"{letter} {option}" for letter, option in zip(LETTERS, found, strict=False)]
    lists = (" ".join(found), " ".join(lettered)) if found else ()
    return [text, *(f"{question} {heading} {listed}" for listed in lists for heading in _HEADINGS)]


def _digest(found: Sequence[str]) -> bytes:
    return hashlib.blake2b("\0".join(found).encode(), digest_size=12).digest()
