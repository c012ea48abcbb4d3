"""Which token ids mean the same to two models, and which a student must never emit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vold.errors import VocabularyMismatch
from vold.families import family_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEHOLDERS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def banned_ids(config: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that no response may hold: vision placeholders, and embedding rows the tokenizer has no token for."""
    rows = int(config.get_text_config().vocab_size)
    placeholders = {int(i) for name in PLACEHOLDERS if (i := getattr(config, name, None)) is not None}
    if pattern := family_of(config).placeholders:
        placeholders |= {i for token, i in tokenizer.get_vocab().items() if re.fullmatch(pattern, token)}
    return sorted({i for i in placeholders if i < rows} | set(range(len(tokenizer), rows)))


def check_shared_ids(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, *, where: str = "teacher.path"
) -> int:
    """Compare two tokenizers' dictionaries id by id.

    Token ids are sent to the teacher as they are, so every token of the student must have the same id there. Extra
    tokens of the teacher are allowed.

    Returns:
        How many ids are shared.

    Raises:
        VocabularyMismatch: naming the first tokens that differ.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    different = sorted((i, token) for token, i in ours.items() if theirs.get(token) != i)
    if different:
        first = ", ".join(
            f"{token!r} is {i} here and {theirs.get(token, 'absent')} there" for i, token in different[:3]
        )
        raise VocabularyMismatch(
            f"the teacher gives other ids to {len(different)} of the student's {len(ours)} tokens",
            where=where,
            got=first,
            fix="choose a teacher of the student's tokenizer family, or set teacher.tokenizer=align",
        )
    return len(ours)
