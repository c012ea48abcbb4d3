"""Special tokens that somebody typed into a prompt or an answer stay text: they end no turn and show no picture."""

from __future__ import annotations

import copy
import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vold.errors import DataError
from vold.types import IMAGE_MARKER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

    from vold.types import Message

PRIVATE = range(0xE000, 0xF900)
"""Characters without a meaning."""


class TypedText:
    """Text from outside, in the tokens of a model.

    Args:
        tokenizer: the model's; tokens may be added to it later.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known = functools.lru_cache(1)(self._read)
        # A copy: telling a tokenizer to take special tokens for text is seen by every thread that uses it.
        self._copy = functools.lru_cache(1)(lambda size: copy.deepcopy(tokenizer))

    def ids(self, text: str) -> tuple[int, ...]:
        """Ids of running text; special tokens in it are spelled with ordinary ones."""
        pattern, special = self._known(len(self.tokenizer))
        if not pattern.search(text):
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        ids = self._spelled(text)
        if special.intersection(ids):  # a vocabulary of whole words has them as words, too
            ids = self._spelled(pattern.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text))
        return ids

    def hide(self, messages: Sequence[Message]) -> tuple[Sequence[Message], Hidden | None]:
        """Messages with a mark in place of each special token, so that neither template nor processor sees one.

        Without any the messages come back as they are, and None.
        """
        pattern, _ = self._known(len(self.tokenizer))
        if not any(pattern.search(m.text) for m in messages):
            return messages, None
        everything = "".join(m.text for m in messages)
        mark = next(c for c in map(chr, PRIVATE) if c not in everything)
        found: list[str] = []

        def marked(match: re.Match[str], keep: str) -> str:
            if match[0] == keep:
                return keep
            found.append(match[0])
            return f"{mark}{len(found) - 1}{mark}"

        def without(m: Message) -> Message:
            keep = IMAGE_MARKER if m.images else ""  # the place of a picture, whatever a tokenizer has of that name
            return replace(m, text=pattern.sub(functools.partial(marked, keep=keep), m.text))

        return [without(m) for m in messages], Hidden(mark, tuple(found), str(self.tokenizer.eos_token), self._inside)

    def _spelled(self, text: str) -> tuple[int, ...]:
        tokenizer: Any = self._copy(len(self.tokenizer))
        return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _inside(self, text: str) -> tuple[int, ...]:
        """Ids of a piece in the middle of a text, where some tokenizers would put a blank before it."""
        first, whole = self.ids("x"), self.ids("x" + text)
        return whole[len(first) :] if whole[: len(first)] == first else self.ids(text)

    def _read(self, size: int) -> tuple[re.Pattern[str], frozenset[int]]:
        """What finds special tokens in a text, the longest first, and their ids."""
        special = {i: t.content for i, t in self.tokenizer.added_tokens_decoder.items() if t.special}
        longest = sorted((t for t in special.values() if len(t) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) or "(?!)"), frozenset(special)


@dataclass(frozen=True)
class Hidden:
    """Special tokens taken out of messages. Each travels through the tokenizer as an end token.

    Attributes:
        mark: stands on both sides of a number in their places.
        found: what was typed, by number.
        carrier: the end token.
        spelled: gives the ids of a text.
    """

    mark: str
    found: tuple[str, ...]
    carrier: str
    spelled: Callable[[str], tuple[int, ...]]

    def carried(self, text: str) -> tuple[str, list[int | None]]:
        """A rendered text with the carrier in the place of marks, and for each carrier which mark it was; None for one
        of the template."""
        places: list[int | None] = []

        def carry(match: re.Match[str]) -> str:
            places.append(int(match[1]) if match[1] else None)
            return self.carrier

        return re.sub(f"{self.mark}(\\d+){self.mark}|{re.escape(self.carrier)}", carry, text), places

    def spell(self, ids: Sequence[int], end_id: int, places: Sequence[int | None]) -> tuple[int, ...]:
        """Ids of the carried text with each typed special token spelled in its place.

        Raises:
            DataError: the tokenizer does not make one token of each carrier.
        """
        if ids.count(end_id) != len(places):
            raise DataError(
                "a special token in a prompt cannot be kept as text",
                got=", ".join(sorted(set(self.found)))[:100],
                fix="leave it out of the prompt, or mend the tokenizer: its end token is not one token everywhere",
            )
        at = iter(places)
        out: list[int] = []
        for i in ids:
            number: Any = next(at) if i == end_id else None
            out += [i] if number is None else self.spelled(self.found[number])
        return tuple(out)
