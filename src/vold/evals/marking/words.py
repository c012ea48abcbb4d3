"""Answers in words: what counts when two texts are compared."""

from __future__ import annotations

import re

from vold.graders.extract import fold, squeeze

TEXT_COMMAND = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|mathrm|mathbf|mathsf|mbox)\s*\{([^{}]*)\}")
EMPHASIS = re.compile(r"(?<!\w)(?:\*\*|__)|(?:\*\*|__)(?!\w)")
_ARTICLE = re.compile(r"(?:the|a|an)\s+(?=\S)", re.IGNORECASE)
_LATEX_BLANK = re.compile(r"\\[,;:! ()\[\]]|\\(?:left|right|displaystyle)(?![a-zA-Z])|~")
_PUNCTUATION = re.compile(
    r"[,;:!?\"()\[\]{}_*`\u2018\u2019\u201c\u201d$]|\.(?!\d)|(?<=[^\W\d])[-\u2010](?=[^\W\d])|(?<=\w)'(?=\s|$)"
)


def exact_words(text: str) -> str:
    """The text without markup and final stop; case and everything else kept. LaTeX loses its blanks."""
    bare = _LATEX_BLANK.sub(" ", TEXT_COMMAND.sub(r"\1", squeeze(text)).strip("$ "))
    bare = re.sub(r"\\[dt]frac\b", r"\\frac", bare)
    return "".join(bare.split()) if "\\" in bare else squeeze(bare).rstrip(".")


def plain_words(text: str) -> str:
    """The words in one case, without punctuation and a leading article."""
    bare = _PUNCTUATION.sub(" ", exact_words(fold(text)).strip("'"))
    bare = " ".join(bare.split())
    return _ARTICLE.sub("", bare, count=1).casefold() if _ARTICLE.match(bare) else bare.casefold()
