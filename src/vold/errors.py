"""Every error a user can cause or meet, as one tree.

```
VoldError
├── ConfigError (ValueError)          a recipe is wrong
│   └── InUse                         another process is at work in a directory
├── DataError (ValueError)            a row, a template or a whole data set is wrong
│   └── UngradableReference           a reference answer that its own grader rejects
├── VocabularyMismatch (ValueError)   student and teacher do not share token ids
├── TeacherError (RuntimeError)       a teacher failed or returned something unusable
│   └── AlignmentError                scores that do not line up with the response tokens
├── SamplerError (RuntimeError)       the student's sampler failed
├── CheckpointError (RuntimeError)    a checkpoint or model directory is missing, cut short or corrupt
└── TrainingError (RuntimeError)      a step produced something that must not reach the weights
    └── Diverged                      the student's loss, gradient or distributions are not finite
```

Each class is also the standard-library type in brackets, so callers who do not know `vold` still catch it. All of
them survive pickling. A message says four things: what is wrong, where, what was found, and how to mend it. A message
may quote a file, a server or a model: what it quotes is text to whoever prints it (`clean`).
"""

from __future__ import annotations

import re

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def clean(text: object) -> str:
    """Return text that shows itself as it is, in a terminal and on a page; tabs and ends of lines stay.

    Control characters (C0 and C1, so that no escape code is whole) and half surrogate pairs become U+FFFD. What is not
    seen but changes what is, such as controls of direction, characters of no width and tags, is written as its number.

    Example:
        >>> clean("a" + chr(0x202E) + "b")
        'a[U+202E]b'
    """
    text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(text))
    return _UNSEEN.sub(lambda found: f"[U+{ord(found.group()):04X}]", text)


class VoldError(Exception):
    """Base of all errors raised on purpose by this package.

    Args:
        what: one sentence on what is wrong.
        where: file, key, row or component; empty where there is only one place it can be.
        got: the offending value as found, already turned into text.
        fix: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str = "", got: str = "", fix: str = "") -> None:
        self.what, self.where, self.got, self.fix = what, where, got, fix
        parts = {"": what, "  where: ": where, "  got:   ": got, "  fix:   ": fix}
        super().__init__("\n".join(head + _below(clean(part)) for head, part in parts.items() if part or not head))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.got, self.fix)


def _below(text: str) -> str:
    """Text whose further lines stand below its first, so that what is quoted cannot look like another part."""
    return re.sub(r"\n(?! {4})", "\n         ", text)


def _rebuild(cls: type[VoldError], what: str, where: str, got: str, fix: str) -> VoldError:
    return cls(what, where=where, got=got, fix=fix)


class ConfigError(VoldError, ValueError):
    """A recipe holds an unknown key, a wrong type or a combination that cannot run."""


class InUse(ConfigError):
    """Another process is at work in a run directory; nothing was changed."""


class DataError(VoldError, ValueError):
    """A data row, a chat template or a whole data set cannot be used."""


class UngradableReference(DataError):
    """A reference answer that its own grader does not mark as correct."""


class VocabularyMismatch(VoldError, ValueError):
    """Student and teacher give different meanings to the same token ids."""


class TeacherError(VoldError, RuntimeError):
    """A teacher failed or returned something unusable."""


class AlignmentError(TeacherError):
    """Teacher scores whose length differs from the response they should score."""


class SamplerError(VoldError, RuntimeError):
    """The student's sampler failed."""


class CheckpointError(VoldError, RuntimeError):
    """A checkpoint or a model directory is missing, cut short or corrupt."""


class TrainingError(VoldError, RuntimeError):
    """A training step produced a value, such as a non-finite loss, that must not reach the weights."""


class Diverged(TrainingError):
    """The student's loss, gradient or distributions are not finite, as where a learning rate is too high."""
