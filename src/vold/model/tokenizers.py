"""Student and teacher side by side: ids, embedding rows, tokens that only one of them has, chat templates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vold.errors import VocabularyMismatch
from vold.model.families import image_text_class
from vold.model.templates import rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TURNS = (
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "5"},
    {"role": "user", "content": "And 4 + 5?"},
)
"""A conversation that both chat templates are given."""


@dataclass(frozen=True)
class Pairing:
    """What differs between a student and a teacher.

    Attributes:
        shared: tokens that both have under one id.
        different: the student's tokens that the teacher does not have, or has under another id, with both ids.
        extra: the teacher's tokens that the student does not have, with the teacher's id and in how many of its own
            tokens the student writes them, by id.
        rows: embedding rows of student and teacher.
        same_template: whether both write a conversation with the same ids.
    """

    shared: int
    different: tuple[tuple[str, int, int | None], ...]
    extra: tuple[tuple[str, int, int], ...]
    rows: tuple[int, int]
    same_template: bool


def pair_tokenizers(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, student_config: Any, teacher_config: Any
) -> Pairing:
    """Compare two tokenizers and the configs of their models; nothing is loaded."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    different = sorted((i, t) for t, i in ours.items() if theirs.get(t) != i)
    extra = sorted((i, t) for t, i in theirs.items() if t not in ours)
    return Pairing(
        shared=len(ours) - len(different),
        different=tuple((t, i, theirs.get(t)) for i, t in different),
        extra=tuple((t, i, len(student(t, add_special_tokens=False)["input_ids"])) for i, t in extra),
        rows=(_rows(student_config), _rows(teacher_config)),
        same_template=_written(student) == _written(teacher),
    )


def pairing_lines(found: Pairing, ours: int, theirs: int, *, added: bool) -> list[tuple[str, str]]:
    """The comparison as lines of a report, each a heading and what was found.

    Args:
        found: the comparison.
        ours: tokens of the student's tokenizer.
        theirs: tokens of the teacher's.
        added: whether the student is given the teacher's further tokens.
    """
    student, teacher = found.rows
    lines = [
        ("same ids", f"{found.shared:,} of the student's {ours:,} tokens; the teacher has {theirs:,}"),
        (
            "embedding rows",
            f"student {student:,} ({student - ours:,} without a token), "
            f"teacher {teacher:,} ({teacher - theirs:,} without a token)",
        ),
    ]
    if found.different:
        named = ", ".join(
            f"{t!r} is {i} here and {'absent' if j is None else j} there" for t, i, j in found.different[:2]
        )
        lines.append(("other ids", f"{len(found.different):,} tokens: {named}"))
    if found.extra:
        named = ", ".join(f"{t!r} is id {i} there and {n} tokens here" for t, i, n in found.extra[-2:])
        stopped = "a trace with one stops the cold start unless student.teacher_tokens=add or teacher.tokenizer=align"
        fate = "added to the student under these ids" if added else stopped
        lines.append(("only the teacher has", f"{len(found.extra):,} tokens: {named}; {fate}"))
    template = "the same ids" if found.same_template else "other ids: each model sees the prompt through its own"
    lines.append(("chat templates write a conversation with", template))
    return lines


def add_teacher_tokens(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, *, rows: int) -> list[str]:
    """Give the student's tokenizer the tokens that only the teacher's has, under the teacher's ids.

    The student's embedding rows of these ids stay as they are: untrained, for the cold start to train.

    Args:
        student: changed in place.
        teacher: where the tokens come from.
        rows: embedding rows of the student.

    Returns:
        The tokens added, by id.

    Raises:
        VocabularyMismatch: the ids do not follow those of the student, or the student has no rows for them.
    """
    ours = student.get_vocab()
    new = sorted((i, t) for t, i in teacher.get_vocab().items() if t not in ours)
    first = len(student)
    if new and [i for i, _ in new] != list(range(first, first + len(new))):
        raise VocabularyMismatch(
            "the teacher's further tokens do not follow the student's, so they cannot be added under the same ids",
            where="student.teacher_tokens: add",
            got=f"{new[0][1]!r} is id {new[0][0]} there, the student's next id is {first}",
            fix="set student.teacher_tokens=refuse, or choose a teacher of the student's tokenizer family",
        )
    if new and new[-1][0] >= rows:
        raise VocabularyMismatch(
            "the student has no embedding rows for the teacher's further tokens",
            where="student.teacher_tokens: add",
            got=f"{new[-1][1]!r} is id {new[-1][0]} there, the student has {rows} rows",
            fix="resize the student's embeddings and save it, or set student.teacher_tokens=refuse",
        )
    described = teacher.added_tokens_decoder
    student.add_tokens([described.get(i, t) for i, t in new])
    return [t for _, t in new]


def _rows(config: Any) -> int:
    return int(config.get_text_config().vocab_size)


def _written(tokenizer: PreTrainedTokenizerBase) -> Any:
    return tokenizer(rendered(tokenizer, [dict(t) for t in TURNS]), add_special_tokens=False)["input_ids"]


PLACEHOLDER_IDS = re.compile(r"(image|video|vision|audio|boi|eoi|boa|eoa)_(\w+_)?token_(id|index)")
"""How configs call ids that stand for pictures and sounds, and what stands around them."""
PLACEHOLDER = re.compile(
    r"[<\[]\|?[^<>\s]*(image|img|vision|video|audio|global-img|row_\d+_col_\d+|patch\||tile_[xy])[^<>\s]*[>\]]",
    re.IGNORECASE,
)
"""How tokenizers spell them. A response never holds one."""


def banned_ids(config: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that no response may hold: vision placeholders, and embedding rows the tokenizer has no token for."""
    rows = _rows(config)
    named = (getattr(config, name) for name in dir(config) if PLACEHOLDER_IDS.fullmatch(name))
    placeholders = {i for i in named if isinstance(i, int)}
    if image_text_class(config) is not None:
        added = tokenizer.added_tokens_decoder.items()
        placeholders |= {i for i, token in added if PLACEHOLDER.fullmatch(token.content)}
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
