"""What bytes a tokenizer's tokens stand for, and how two tokenizers cut the same bytes."""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vold.errors import VocabularyMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]


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
        VocabularyMismatch: the tokenizer is of another kind, or changes text before it cuts it, so that its tokens do
            not stand for the bytes of the text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, where: str) -> None:
        self.tokenizer = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        described = json.loads(backend.to_str()) if backend is not None else {}
        kinds = _kinds(described.get("decoder"))
        # NFC leaves nearly all text alone; `cut` notices where it does not.
        self.is_byte_level = kinds == ["ByteLevel"]
        pieces = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}
        changes = [k for k in _kinds(described.get("normalizer")) if k not in ("Prepend", "Replace", "NFC")]
        if changes or not (self.is_byte_level or (kinds and set(kinds) <= pieces)):
            raise VocabularyMismatch(
                "this tokenizer's tokens do not stand for the bytes of the text, so they cannot be aligned with others",
                where=where,
                got=f"normalizer {', '.join(changes) or 'none'}, decoder {', '.join(kinds) or 'none'}",
                fix="use a pair with byte-level BPE or SentencePiece with byte fallback, or a teacher that shares ids",
            )
        self.special = {i: str(t.content) for i, t in tokenizer.added_tokens_decoder.items()}

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

    def cut(self, raw: bytes, names: Mapping[bytes, int] | None = None) -> list[tuple[int, bytes]] | None:
        """The tokens of some bytes, and what each stands for; None where they would not add up to these bytes.

        Bytes that are no text, as a model may well write, are spelled one by one. Each of `names` is taken for the
        token of its id, wherever it stands.
        """
        out: list[tuple[int, bytes]] = []
        if names:
            for piece in re.split(b"(" + b"|".join(map(re.escape, names)) + b")", raw):
                found = [(names[piece], piece)] if piece in names else self.cut(piece)
                if found is None:
                    return None
                out += found
            return out
        while raw:
            try:
                text, stray, rest = raw.decode(), b"", b""
            except UnicodeDecodeError as error:
                text, stray, rest = raw[: error.start].decode(), raw[error.start : error.end], raw[error.end :]
            found = self._cut_text(text)
            tokens = [(self._byte_ids.get(b), bytes([b])) for b in stray]
            if found is None or any(i is None for i, _ in tokens):
                return None
            out += found + [(i, b) for i, b in tokens if i is not None]
            raw = rest
        return out

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        names = (
            {b: x for x, b in BYTE_LETTERS.items()} if self.is_byte_level else {b: f"<0x{b:02X}>" for b in range(256)}
        )
        vocabulary = self.tokenizer.get_vocab()
        return {b: vocabulary[name] for b, name in names.items() if name in vocabulary}

    def _cut_text(self, text: str) -> list[tuple[int, bytes]] | None:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        out = [(i, self.bytes_of(i)) for i in ids]
        found = [(i, b) for i, b in out if b is not None]
        joined = b"".join(b for _, b in found)
        if found and joined == b" " + text.encode():  # SentencePiece puts a blank in front
            found[0] = (found[0][0], found[0][1][1:])
            joined = joined[1:]
        return found if len(found) == len(out) and joined == text.encode() else None


def _kinds(node: Any) -> list[str]:
    if not isinstance(node, dict):
        return []
    inner = node.get("decoders", node.get("normalizers"))
    return [str(node.get("type"))] if inner is None else [k for part in inner for k in _kinds(part)]


def shared_spans(ours: Sequence[bytes], theirs: Sequence[bytes]) -> list[Span | None]:
    """For each of our tokens the run of their tokens that spells exactly its bytes; None where there is no such run.

    Both sequences must spell the same bytes. A token without bytes has no run.

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
    position = 0
    for piece in ours:
        first, last = starts.get(position), starts.get(position + len(piece))
        out.append((first, last) if piece and first is not None and last is not None else None)
        position += len(piece)
    return out
