"""What bytes a tokenizer's tokens stand for, and how two tokenizers cut the same bytes."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from vold.errors import VocabularyMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
Cut = list[tuple[int, bytes]]
"""Tokens, and the bytes each stands for."""


class Unsaid(bytes):
    """Bytes of a character that a tokenizer never writes as they are, because its normalizer changes it first. Spelled
    one by one the model reads them, but what it says of them is no opinion."""


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level BPE writes bytes with: printable Latin-1 as itself, the rest from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {chr(b): b for b in plain} | {chr(0x100 + i): b for i, b in enumerate(rest)}


BYTE_LETTERS = _byte_letters()


class Spelling:
    """Tokens as bytes. Special tokens stand for no bytes: they are dealt with by name.

    Args:
        tokenizer: byte-level BPE (GPT-2's kind: Qwen, SmolLM, Llama 3), or SentencePiece with byte fallback (Llama 2,
            Gemma, Mistral).
        where: what to name in errors.

    Raises:
        VocabularyMismatch: the tokenizer is of another kind, so that its tokens do not stand for bytes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, where: str) -> None:
        self.tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        described = json.loads(backend.to_str()) if backend is not None else {}
        kinds = _kinds(described.get("decoder"))
        self.is_byte_level = kinds == ["ByteLevel"]
        pieces = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
        if not (self.is_byte_level or (kinds and set(kinds) <= pieces)):
            raise VocabularyMismatch(
                "this tokenizer's tokens do not stand for the bytes of the text, so they cannot be aligned with others",
                where=where,
                got=f"decoder {', '.join(kinds) or 'none'}",
                fix="use a pair with byte-level BPE or SentencePiece with byte fallback, or a teacher that shares ids",
            )
        self.special = {i: str(t.content) for i, t in tokenizer.added_tokens_decoder.items()}
        self._normalizer: Any = getattr(backend, "normalizer", None)
        self._blank_in_front = "Prepend" in _kinds(described.get("normalizer"))

    def bytes_of(self, token_id: int) -> bytes | None:
        """The bytes of a token; None for a special token or an id without a token."""
        token: Any = None if token_id in self.special else self.tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return None
        if self.is_byte_level:
            return bytes(BYTE_LETTERS[letter] for letter in token) if set(token) <= BYTE_LETTERS.keys() else None
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return str(token).replace("\u2581", " ").encode()

    def cut(self, raw: bytes, names: Mapping[bytes, int] | None = None) -> Cut | None:
        """The tokens of some bytes, and what each stands for; None where a byte has no token.

        Bytes that are no text, as a model may well write, are spelled one by one, and so are characters that the
        normalizer changes (`Unsaid`): the tokens always add up to the bytes. Each of `names` is taken for the token of
        its id, wherever it stands.
        """
        out: Cut = []
        if names:
            for piece in re.split(b"(" + b"|".join(map(re.escape, names)) + b")", raw):
                found = [(names[piece], piece)] if piece in names else self.cut(piece)
                if found is None:
                    return None
                out += found
            return out
        for piece, kind in self._pieces(raw):
            found = self._cut_text(piece.decode(), bool(out)) if kind is None else self._spelled(piece, kind)
            if found is None:
                return None
            out += found
        return out

    def _pieces(self, raw: bytes) -> Iterator[tuple[bytes, type[bytes] | None]]:
        """The bytes in runs: of text that the normalizer leaves alone (None), and of what is spelled byte by byte."""
        while raw:
            try:
                text, stray, raw = raw.decode(), b"", b""
            except UnicodeDecodeError as error:
                stray, rest = raw[error.start : error.end], raw[error.end :]
                text, raw = raw[: error.start].decode(), rest
            while text:
                length = self._unchanged(text)
                kind = None if length else Unsaid
                length = length or self._changed(text)
                yield text[:length].encode(), kind
                text = text[length:]
            if stray:
                yield stray, bytes

    def _normal(self, text: str) -> str:
        """What the normalizer makes of a text, but for blanks, which decoding brings back."""
        if self._normalizer is None:
            return text
        made = str(self._normalizer.normalize_str(text)).replace("\u2581", " ")
        return made.removeprefix(" ") if self._blank_in_front else made

    def _unchanged(self, text: str) -> int:
        """How many characters the normalizer leaves alone from the start on."""
        while text:
            made = self._normal(text)
            if made == text:
                break
            # A stretch may end in what counts as changed only there, such as a blank that would be stripped.
            same = next((i for i, (a, b) in enumerate(zip(text, made, strict=False)) if a != b), len(made))
            text = text[: min(same, len(text) - 1)]
        return len(text)

    def _changed(self, text: str) -> int:
        """How many characters from the start on the normalizer changes, a letter with all its marks."""
        length = next((n for n in range(1, len(text)) if self._normal(text[:n]) != text[:n]), len(text))
        return next((n for n in range(length, len(text)) if not unicodedata.combining(text[n])), len(text))

    def _spelled(self, raw: bytes, kind: type[bytes]) -> Cut | None:
        found = [(self._byte_ids.get(b), kind([b])) for b in raw]
        out = [(i, b) for i, b in found if i is not None]
        return out if len(out) == len(found) else None

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        names = (
            {b: x for x, b in BYTE_LETTERS.items()} if self.is_byte_level else {b: f"<0x{b:02X}>" for b in range(256)}
        )
        vocabulary = self.tokenizer.get_vocab()
        return {b: vocabulary[name] for b, name in names.items() if name in vocabulary}

    def _cut_text(self, text: str, inside: bool) -> Cut | None:
        """Tokens of text that the normalizer leaves alone; `inside` the response, not at its start."""
        found = self._tokens(text)
        if b"".join(b for _, b in found) == b" " + text.encode():  # SentencePiece puts a blank in front
            # Inside a response there is none: a line's end is a token of its own, and what follows has no blank.
            found = self._after_a_line(text) if inside else [(found[0][0], found[0][1][1:]), *found[1:]]
        if b"".join(b for _, b in found) == text.encode():
            return found
        return self._spelled(text.encode(), Unsaid)

    def _after_a_line(self, text: str) -> Cut:
        found = self._tokens("\n" + text)
        start = next((n for n in range(len(found)) if b"".join(b for _, b in found[:n]) in (b"\n", b" \n")), 0)
        return found[start:]

    def _tokens(self, text: str) -> Cut:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [(i, self.bytes_of(i) or b"") for i in ids]


def _kinds(node: Any) -> list[str]:
    if not isinstance(node, dict):
        return []
    inner = node.get("decoders", node.get("normalizers"))
    return [str(node.get("type"))] if inner is None else [k for part in inner for k in _kinds(part)]


def shared_spans(ours: Sequence[bytes], theirs: Sequence[bytes]) -> list[Span | None]:
    """For each of our tokens the run of their tokens that spells exactly its bytes; None where there is no such run.

    Both sequences must spell the same bytes. A token without bytes has no run, nor has one with `Unsaid` bytes.

    Example:
        >>> shared_spans([b"ab", b"c", b"de"], [b"a", b"b", b"cd", b"e"])
        [(0, 2), None, None]
    """
    starts: dict[int, int] = {}
    position = 0
    for i, piece in enumerate(theirs):
        starts.setdefault(position, i)
        position += len(piece)
    starts.setdefault(position, len(theirs))
    out: list[Span | None] = []
    unsaid = list(accumulate((isinstance(piece, Unsaid) for piece in theirs), initial=0))
    position = 0
    for piece in ours:
        first, last = starts.get(position), starts.get(position + len(piece))
        span = (first, last) if piece and first is not None and last is not None else None
        out.append(None if span is None or unsaid[span[0]] != unsaid[span[1]] else span)
        position += len(piece)
    return out
