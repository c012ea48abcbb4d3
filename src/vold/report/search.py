"""The search in stored rollouts: problems letter by letter, responses token by token, of which there are fewer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from vold.run.rollouts import StoredRollout

    Numbers = NDArray[np.int32]
    Places = NDArray[np.intp]

END = "\0"
"""Stands behind the last token of a response."""
WHOLE, BEGIN = 1, 2
"""Tokens that hold what is looked for, and tokens that end with its beginning."""


class SearchedStep:
    """Problems and responses of a step, ready to be searched: all tokens one after the other, by the number of their
    text. A text is found where it stands in the joined texts, in small letters."""

    def __init__(self, stored: Sequence[StoredRollout]) -> None:
        self.prompts = [one.question.prompt.lower() for one in stored]
        self.words = {END: 0}
        self.tokens: list[Numbers] = []
        distinct: list[Numbers] = []
        for one in stored:
            _, texts, place = one.spelled()
            between = " " if is_spaced(texts) else ""
            numbers = [self.words.setdefault(f"{text}{between}".lower(), len(self.words)) for text in texts]
            distinct.append(np.asarray([0, *numbers], "int32"))
            self.tokens.append(np.append(distinct[-1][1:][place], np.int32(0)))
        self.distinct = np.concatenate([*distinct, np.zeros(0, "int32")])
        self.starts = np.cumsum([0, *map(len, distinct)])[:-1]
        self.spelled = list(self.words)
        self.by_last: dict[str, list[str]] = {}
        for word in self.words:
            self.by_last.setdefault(word[-1:], []).append(word)

    def find(self, text: str) -> list[int]:
        """Places of the rollouts in whose problem or response it stands."""
        text = text.lower()
        found = np.asarray([text in prompt for prompt in self.prompts], bool)
        begins = {p: [*self._ending(text[:p])] for p in range(1, len(text))}
        marks = np.zeros(len(self.words), "uint8")
        marks[[i for words in begins.values() for i in words]] = BEGIN
        marks[[i for word, i in self.words.items() if text in word and i]] = WHOLE
        if len(found) and marks.any():
            marked = marks[self.distinct]
            found |= np.logical_or.reduceat(marked == WHOLE, self.starts)
            left = np.flatnonzero(~found & np.logical_or.reduceat(marked == BEGIN, self.starts))
            if len(left):
                tokens = np.concatenate([self.tokens[i] for i in left.tolist()])
                ends = np.flatnonzero(tokens == 0)
                found[left[np.searchsorted(ends, self._across(text, begins, tokens, marks))]] = True
        return [int(i) for i in np.flatnonzero(found)]

    def _ending(self, beginning: str) -> Iterator[int]:
        """Numbers of the texts that end with the beginning of what is looked for."""
        return (self.words[word] for word in self.by_last.get(beginning[-1], ()) if word.endswith(beginning))

    def _across(self, text: str, begins: dict[int, list[int]], tokens: Numbers, marks: NDArray[np.uint8]) -> Places:
        """Where it ends, of those places where it stands over the ends of tokens."""
        begun, out = np.flatnonzero(marks[tokens] == BEGIN), [np.zeros(0, "intp")]
        first = tokens[begun]
        reached = {p: [begun[self._are(words)[first]]] if words else [] for p, words in begins.items()}
        for p, places in reached.items():
            rest = text[p:]
            while sum(map(len, places)):  # tokens without a text lead back to where they began
                after = np.concatenate(places) + 1
                there, places = tokens[after], []
                names = [i for i in np.flatnonzero(self._are(there)).tolist() if i]
                out.append(after[self._are([i for i in names if self.spelled[i].startswith(rest)])[there]])
                for i in names:
                    word = self.spelled[i]
                    if rest != word and rest.startswith(word):
                        (reached[p + len(word)] if word else places).append(after[there == i])
        return np.concatenate(out)

    def _are(self, numbers: Sequence[int] | Numbers) -> NDArray[np.bool_]:
        """Whether each text is one of these."""
        table = np.zeros(len(self.words), bool)
        table[np.asarray(numbers, "intp")] = True
        return table


def is_spaced(texts: Sequence[str]) -> bool:
    """Whether tokens are words, to be shown with a blank between them: no text of any has white space in it."""
    return re.search(r"\s", "".join(texts)) is None
