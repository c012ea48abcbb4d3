"""The search in stored rollouts: where a text can stand is looked up in an index of tokens, not read through."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from vold.run.rollouts import StoredRollout

    Numbers = NDArray[np.unsignedinteger]
    Places = NDArray[np.int32]
    Range = tuple[int, int]
    """The first number, and the one after the last."""

BLOCK = 1 << 14
"""Places looked at before it is asked whether every rollout is found."""


class SearchedStep:
    """Problems and responses of a step, ready to be searched. A text is found where it stands in the joined texts, in
    small letters.

    Words are the distinct texts of tokens, numbered in alphabetical order: those that begin alike are a range of
    numbers. `rank` is their order by letters from the last to the first: those that end alike are a range of ranks.
    `tokens` are words, one response behind the other; word 0, the empty one, ends each. `of` says whose a token is, and
    `places` where each word is, word by word.
    """

    def __init__(self, stored: Sequence[StoredRollout]) -> None:
        self.prompts = [one.question.prompt.lower() for one in stored]
        spelled = [_small(one) for one in stored]
        self.words = sorted({"", *(word for words, _ in spelled for word in words)})
        self.longest = max(map(len, self.words))
        self.number = {word: i for i, word in enumerate(self.words)}
        kind = np.min_scalar_type(len(self.words))
        tokens = [np.asarray([self.number[word] for word in words], kind)[place] for words, place in spelled]
        ended = [np.append(one[one > 0], np.zeros(1, kind)) for one in tokens]
        self.tokens = np.concatenate([*ended, np.zeros(0, kind)])
        self.of = np.repeat(np.arange(len(stored), dtype=np.min_scalar_type(len(stored))), [len(one) for one in ended])
        self.places = np.argsort(self.tokens, kind="stable").astype("int32")
        self.counts = np.bincount(self.tokens, minlength=len(self.words))
        self.starts = np.cumsum([0, *self.counts])
        held = np.zeros((len(self.words), len(stored)), bool)
        held[self.tokens, self.of] = True
        self.held = np.packbits(held, axis=1)
        self.backwards = sorted(word[::-1] for word in self.words)
        self.by_rank = np.asarray([self.number[word[::-1]] for word in self.backwards])
        self.rank = np.argsort(self.by_rank).astype("int32")

    @property
    def size(self) -> int:
        """About as many bytes."""
        return sum(array.nbytes for array in (self.tokens, self.of, self.places, self.held))

    def find(self, text: str) -> list[int]:
        """Places of the rollouts in whose problem or response it stands."""
        text = text.lower()
        found = np.asarray([text in prompt for prompt in self.prompts], bool)
        within = [i for i, word in enumerate(self.words) if text in word]
        found |= np.unpackbits(np.bitwise_or.reduce(self.held[within], axis=0), count=len(found)).astype(bool)
        for places in self._across(text):
            found[self.of[places]] = True
            if found.all():
                break
        return [int(i) for i in np.flatnonzero(found)]

    def _across(self, text: str) -> Iterator[Places]:
        """Where it ends, of those places where it stands in several tokens: the first ends with its beginning, the last
        begins with its end, and those between are whole words of it."""
        reached: dict[int, list[Places]] = {p: [] for p in range(1, len(text))}
        for p, between in reached.items():
            first, last = _beginning(self.backwards, text[:p][::-1]), _beginning(self.words, text[p:])
            after = np.concatenate([*between, np.zeros(0, "int32")]) + 1
            there = self.tokens[after]
            for q in range(p + 1, min(len(text), p + self.longest + 1)):
                if word := self.number.get(text[p:q]):
                    here = self._at((word, word + 1))
                    reached[q] += [here[self._ends(here - 1, first)], after[there == word]]
            yield after[_within(there, last)]
            yield from self._pairs(first, last)

    def _pairs(self, first: Range, last: Range) -> Iterator[Places]:
        """Words of the second range that stand behind one of the first, found from where there are fewer."""
        begun, ends = self.by_rank[slice(*first)], self._at(last)
        if self.counts[begun].sum() >= len(ends):
            yield from (some[self._ends(some - 1, first)] for some in _blocks(ends))
        else:
            after = np.concatenate([ends[:0], *(self._at((i, i + 1)) for i in begun.tolist())]) + 1
            yield from (some[_within(self.tokens[some], last)] for some in _blocks(after))

    def _ends(self, places: Places, ranks: Range) -> NDArray[np.bool_]:
        """Whether the words there end as those of these ranks."""
        return _within(self.rank[self.tokens[places]], ranks)

    def _at(self, words: Range) -> Places:
        """Where these words are."""
        return self.places[self.starts[words[0]] : self.starts[words[1]]]


def _small(one: StoredRollout) -> tuple[list[str], NDArray[np.intp]]:
    """The texts that occur, in small letters, and which of them each token is."""
    _, texts, place = one.spelled()
    between = " " if is_spaced(texts) else ""
    return [f"{text}{between}".lower() for text in texts], place


def _beginning(words: Sequence[str], text: str) -> Range:
    """Those of sorted words that begin with a text."""
    size = len(text)
    low = bisect_left(words, text, key=lambda word: word[:size])
    return low, bisect_right(words, text, low, key=lambda word: word[:size])


def _blocks(places: Places) -> list[Places]:
    """In parts: what is common is found everywhere after a few."""
    return np.array_split(places, len(places) // BLOCK + 1)


def _within(numbers: NDArray[np.integer], limits: Range) -> NDArray[np.bool_]:
    return (numbers >= limits[0]) & (numbers < limits[1])


def is_spaced(texts: Sequence[str]) -> bool:
    """Whether tokens are words, to be shown with a blank between them: no text of any has white space in it."""
    return re.search(r"\s", "".join(texts)) is None
