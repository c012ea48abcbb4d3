r"""Where a response states its answer, without a judge.

A statement is one of these, in the text after the last `</think>`:

- a closed `\boxed{}` or `\fbox{}`; boxes with no more than "and", "or" or a comma between them are one statement;
- what stands in `<answer>` tags (or GLM's box tokens), or behind an `<answer>` that nothing closes;
- what follows a marker to the end of its line, or else on the next line that holds something: "answer" with a colon or
  a dash ("Answer: B", "**Final answer:** B", "答案: B"), "the answer is" (should be, must be ..), "the
  correct option is";
- "option B is correct", "I choose B";
- what follows `####`, on the last line;
- the value of `"answer"` in JSON.

An option that its own clause denies or doubts ("I don't think B is correct", "neither A nor B is right"), and an answer
that is called wrong or possible ("a common wrong answer: B"), are no statements.

A statement has readings, the likeliest first: all of the line, then its first sentence. Nothing else is searched: "I am
unsure" holds an option I, and "a triangle, so D" an option A.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from vold.evals.marking.words import EMPHASIS
from vold.graders.extract import boxes, squeeze

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ANSWER_CHARS = 2000

MOST_MARKERS = 20
"""Markers of an answer line that are looked at, from the end."""

MAX_JOINT = 60
"""Characters between two boxes that can be one answer."""


# Blanks are counted, so that a search through a long text stays linear. `~` is a gap, `_` a blank or several.
def _pattern(text: str) -> str:
    return text.replace("~", r"[ \t]{0,4}").replace("_", r"[ \t]{1,4}")


_VERB = _pattern(
    r"(?:is|are|(?:would|should|must|will|has_to|turns_out_to)_(?:then_)?be|equals|=)(?!\w)"
    r"(?:_(?:therefore|thus|then|hence|clearly|simply|indeed|obviously|just)\b)?~:?"
)
_CLOSED = _pattern(r"~(?:>|\*\*|\]|\)|`|\\?\})?~")
_START = r"^[ \t*>#-]{0,8}"
_MARKERS = (
    # "Answer: B" in a few languages; "final answer - B"
    rf"\b(?:answers?|ans|antwort|réponse|respuesta|resposta|risposta|ответ){_CLOSED}:|^ans\.(?=_)",
    r"\b(?:antwort|réponse|respuesta|resposta|risposta)(?:_\w{1,12})?_(?:ist|est|es|è|é)(?!\w)",
    rf"(?:答案|答え|解答|回答|正解|정답|正确选项){_CLOSED}(?:[:是为為は은는]|应该是|應該是):?(?:~(?:选项|選項))?",
    rf"\b(?:final|correct|my)_(?:answer|option|choice){_CLOSED}(?:[-\u2013\u2014=]|->|\u2192|=>)(?!\w)",
    # "the answer is B", "the correct option is B", "Option: B"
    rf"(?:\b(?:the|my|our|final|correct|right|best)_|{_START})answers?"
    rf"(?:_(?:to|for)_(?:the|this)_\w{{1,12}}|,_then,)?(?:_|~\*\*~){_VERB}",
    rf"\b(?:correct|right|best|final|my|selected|chosen)_(?:option|choice)(?:_{_VERB}|{_CLOSED}:)",
    rf"{_START}(?:option|choice){_CLOSED}:",
    # a heading, with the answer below
    rf"{_START}(?:the_)?(?:final_|correct_)?answer[ \t*]{{0,6}}$",
)
_MARKER = re.compile("|".join(map(_pattern, _MARKERS)), re.IGNORECASE | re.MULTILINE)
_LETTER = r"(?<![\w(\[*$])(?:\*\*|\\\(|\$)?[(\[]?([A-L])[)\]]?(?:\*\*|\\\)|\$)?"
_LETTERS = r"((?:[(\[]?[A-L][)\]]?(?:, ?| and |, and ))+[(\[]?[A-L][)\]]?)"
_DONE = r"(?=\W*(?:$|\n|[.!]\s)|,? because\b|,? since\b)"
_CALLED = re.compile(
    rf"{_LETTER} is (?:the )?(?:correct|right|answer)(?: (?:answer|option|choice|one))?{_DONE}"
    rf"|(?<!\w)(?i:options|choices|figures) {_LETTERS} are (?:the )?(?:correct|right)(?: ones| answers)?{_DONE}",
    re.MULTILINE,
)
_CHOSEN = re.compile(
    rf"^(?:Therefore|Thus|Hence|So)[,:]? (?:it (?:is|must be|has to be) )?{_LETTER}(?=\W*$)"
    r"|\bI(?: would| will|'d|'ll)? (?:choose|pick|select|chose|go with|opt for)(?: option| choice| answer)? "
    rf"{_LETTER}{_DONE}|(?:选|選)(?:择|擇)?:? ?([A-L])(?![A-Za-z])",
    re.MULTILINE,
)
_IF = re.compile(r"\b(?:if|were|unless)\b[^.!?\n]*$", re.IGNORECASE)
_SUPPOSED = re.compile(
    r"\b(?:if|whether|suppose|assume|assuming|when|unless|why|that|thought|guessed|assumed|believed)\s*(?:the\s*)?$",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"[.!?;:\n]|(?<!glance)(?<!sight),|\b(?:so|therefore|thus|hence|because|since|but|while|whereas|and|then)\b",
    re.IGNORECASE,
)
_DOUBTED = r"\bnobody\b|(?<!\bno )(?<!\bwithout )(?<!\bwithout a )\bdoubt"
_DENIED = re.compile(
    rf"{_DOUBTED}|\b(?:neither|nor|no one|never|not(?! (?:hard|difficult|only)\b)|cannot|wrong|tempting"
    r"|(?<!only )possible|whether|suppose|assume|assuming|assumed|thought|guessed|wonder|at first)\b|n't\b"
    r"|(?:不|别|別|勿|莫|没|沒|未|非|误|誤|错|錯|若|如果|假如)[能会會要可以该該应應]{0,3}$",
    re.IGNORECASE,
)
_DENIED_ANSWER = re.compile(
    rf"{_DOUBTED}|(?:\bnot|n't|\bcannot|\bnever)\s(?:\w{{1,12}}\s)?(?:think|believe|say|claim|agree|accept|mean)\b"
    r"|(?:(?<!only )(?<!best )\b(?:wrong|incorrect|false|tempting|possible|rejected)"
    r"|(?:错误|錯誤|可能)的?)[\s*_]*$",
    re.IGNORECASE,
)
"""What makes an option that is named, or an answer behind a marker, none: looked for before it, in its clause."""
# A box token that nothing closes is looked behind only up to the next one.
_TAGS = re.compile(
    r"<answer>(?!\s*:)(.*?)(?:</answer>|\Z)|<\|begin_of_box\|>((?:(?!<\|begin_of_box\|>).)*?)<\|end_of_box\|>",
    re.DOTALL | re.IGNORECASE,
)
_HASHES = re.compile(r"^[ \t]{0,8}####[ \t]{0,8}(\S[^\n]{0,200})\s{0,100}\Z", re.MULTILINE)
_JSON = re.compile(
    r"[\"'](?:final[_ ]?|short[_ ]?|correct[_ ]?)?answer[\"']\s{0,8}:\s{0,8}"
    r"(\"(?:[^\"\\\n]|\\.){0,500}\"|'[^'\n]{0,500}'|-?[\d.,]{1,40}|\[[^\]\n]{0,500}\])",
    re.IGNORECASE,
)
# A backslash of LaTeX that JSON would need twice: "\frac", "\nu", "\sqrt", but not a line break before a word.
_LATEX_ESCAPE = re.compile(
    r"\\(?:([bfrt](?=[A-Za-z])|n(?=(?:u|e|eq|eg|abla|ot|otin)(?![A-Za-z]))|u(?![0-9A-Fa-f]{4})|[^\"\\/bfnrtu])|.)"
)
# A quote that was opened before the marker, or stands behind a letter: 'Answer: B'
_OPENED = re.compile(r"(?<!\w)['\"\u2018\u201c\u300c\u300e][^'\"\u2018\u2019\u201c\u201d\n]*\Z")
_QUOTED_END = re.compile(
    r"((?:[^'\"\u2018\u2019\u201c\u201d]|(?<=\w)['\u2019](?=\w))+)['\"\u2019\u201d\u300d\u300f][.,;\u3002]?"
)
_MARKUP = " \t\r\n*_`"
_ENCLOSED = re.compile(r"<<(.{1,500}?)>>\.?|\[\[(.{1,500}?)\]\]\.?|<([A-L])>\.?")
_POLITE = re.compile(r"(?:です|でした|입니다|이다)(?=[\u3002.]?$)")
_FORMULA_FIRST = re.compile(
    r"(?:\$([^$]{1,500})\$|\\\((.{1,500}?)\\\)),?\s(for (?:all|every|any|each)\b.*|where\b.*|when\b.*|with\b.*"
    r"|\((?:about|approximately|approx|or about|\u2248|\\approx)[^()]*\)\.?)$"
)
_LINE_ONLY = (r"\[", r"\(", "$$", "$", "")
_SENTENCE = re.compile(
    r"(?<![A-L\d])[.;!](?=\s)|(?<=[A-L\d])[.;!](?=\s+[A-Z\\$*(])"
    r"|,?\s\(?(?:because|since|which|that is|i\.e\.|rounded|to the nearest|to (?:one|two|three) decimal)(?!\w)|\u3002"
)
_PERCENT = re.compile(r"\s?\$?\s?\\?%")
_LETTER_ALONE = re.compile(r"\W*[A-L]\W*")
_JOINT = re.compile(
    r"(?:[\s$,;.*&/|()\[\]{}\\-]|\\text|\\q?quad|\b(?:or|and|maybe|perhaps|possibly|also|either|even|not|oder|ou|o)\b)*",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(r"\b(?:or|maybe|perhaps|possibly|either|even|not|oder|ou|o)\b|/|\|", re.IGNORECASE)

_WRONG = r"(?:wrong|incorrect|mistaken|not (?:right|correct)|an? (?:mistake|error))"
_TAKEN_BACK = re.compile(
    "|".join(
        (
            # at the beginning of a clause
            r"(?:^|[.!?;:,\u2014\u2013\n(-])\s?(?:\*\*)?(?:but |oh,? |and |so )?"
            r"(?:wait\b|no[,.!:]|no wait|nope\b|oops\b|hmm+\b|sorry\b(?! for\b)|correction\b|scratch that|hold on\b"
            r"|on second thought|alternatively,? (?:it (?:is|could|may|might)|the answer|maybe|[(\[]?[A-L]\b|\S{0,3}\d)"
            r"|maybe\b|perhaps\b|possibly\b|not sure\b"
            r"|or,|or (?:maybe|perhaps|possibly|is it|could|is|was|rather|[(\[]?[A-L]\b|\S{0,12}\d)"
            r"|actually,? (?:no|it|the|that|i|my|this is|let me|[(\[]?[A-L]\b|\S{0,3}\d)\b)",
            r"(?:^|[.!?;:,\u2014\u2013\n(-])\s?(?:however|but|yet|still),? (?:option |choice )?[(\[]?[A-L][)\]]? "
            r"(?:fits|matches|works|is (?:the )?(?:much |far |even )?(?:better|best|correct|right|answer|more))\b",
            # a mistake
            r"\bi (?:\w+ )?(?:made|have made|was|am) (?:a |an )?(?:mistake|error|wrong|mistaken|miscalculat)",
            rf"(?<!\bif )\b(?:that|this|it|which)(?:'s| is| was| seems| looks) (?:all )?{_WRONG}",
            r"\b(?:that|this|my|the|above|previous|earlier) (?:\w+ )?(?:answer|result|choice|box|value)(?: above)? "
            rf"(?:is|was|seems|looks) (?:\w+ )?{_WRONG}|\bthe (?:above|previous) is {_WRONG}",
            r"\bbut (?:it|that|this) (?:is|was|can)(?:n't| ?not)\b",
            r"\b(?:change|correct|revise|retract|withdraw) (?:my|the|this) answer|\btake (?:it|that|this) back",
            r"\bi meant\b|\bignore (?:that|the|this|my)\b",
            r"\blet me (?:redo|recalculate|reconsider|rethink|correct|fix)\b",
            r"错了|不对|更正|等等",
            # another answer, or doubt
            r"\b(?:answer|it) (?:is )?(?:probably|perhaps|maybe|possibly)\b",
            r"\banswer (?:might|may|could)(?: also| well)? be\b",
            r"\b(?:might|may|could) be (?:option )?[(\[]?(?:[A-L]\b|\d)",
            r"(?<!only )(?<!best )\bpossible (?:answer|option|choice)s?\s?:",
            r"\bis also (?:possible|plausible|correct|right)\b",
            r"\bshould (?:instead |rather |actually |really |have )?(?:be|been) (?:option )?[(\[]?(?:[A-L]\b|\d)",
            r"\b(?:could|might|may) (?:also|well|equally) be\b|\bis (?:instead|rather)\b|\bnot sure\b|\brandom guess\b",
            r"\bi(?:'m| am) (?:\w+ )?(?:not (?:sure|certain)|unsure|uncertain|guessing)",
        )
    ),
    re.IGNORECASE,
)


class Statement(NamedTuple):
    """Where an answer is stated (characters of the text), how it can be read, and the place in words."""

    start: int
    end: int
    readings: tuple[str, ...]
    place: str


def statements(text: str) -> list[Statement]:
    """All statements of an answer in a text, in the order of their beginnings.

    Example:
        >>> [s.readings[0] for s in statements("The answer is not A. Answer: B")]
        ['not A. Answer: B', 'B']
    """
    found = [*_boxes(text), *_lines(text), *_named(text)]
    for tag in _TAGS.finditer(text):
        inside = tag[1] if tag[2] is None else tag[2]
        if not (_MARKER.search(inside) or boxes(inside)):
            found.append(Statement(tag.start(), tag.end(), _of_block(inside), "answer tags"))
    hashes = _HASHES.search(text)
    if hashes and not _MARKER.search(hashes[0]):
        found.append(Statement(hashes.start(), hashes.end(), readings(hashes[1]), "line behind ####"))
    for pair in _JSON.finditer(text):
        found.append(Statement(pair.start(), pair.end(), (_json_value(pair[1]),), "JSON"))
    return sorted(found)


def readings(line: str) -> tuple[str, ...]:
    """A line without its markup, whole and up to the end of its first sentence."""
    line = EMPHASIS.sub("", line[: MAX_ANSWER_CHARS + 1]).strip(_MARKUP)
    line = _ENCLOSED.sub(lambda m: next(filter(None, m.groups())), _POLITE.sub("", line.replace("`", "").strip()))
    whole = _without_delimiters(line)
    formula = _FORMULA_FIRST.match(line)
    if formula and not taken_back(formula[3]):
        return whole, formula[1] or formula[2]
    end = _SENTENCE.search(line)
    if end is None or taken_back(line[end.start() :]) or _LETTER_ALONE.fullmatch(line, end.start()):
        return (whole,)
    return whole, _without_delimiters(line[: end.start()].strip(_MARKUP))


def taken_back(rest: str) -> bool:
    """Whether the text behind an answer takes it back or leaves it open.

    Example:
        >>> taken_back(". Wait, that is wrong."), taken_back(". Option A is wrong.")
        (True, False)
    """
    lines = (" ".join(line.split()) for line in rest.splitlines())
    return _TAKEN_BACK.search("\n".join(line for line in lines if line)) is not None


def _boxes(text: str) -> Iterator[Statement]:
    """The last box, with those that are joined to it."""
    found = boxes(text)
    if not found:
        return
    joined, alternative = [found.pop()], False
    empty = not text[joined[0].inner_start : joined[0].inner_end].strip()
    while found and not empty and found[-1].end + MAX_JOINT > joined[0].start:
        gap = text[found[-1].end : joined[0].start]
        if not _JOINT.fullmatch(gap):
            break
        alternative = alternative or _ALTERNATIVE.search(gap) is not None
        joined.insert(0, found.pop())
    contents = dict.fromkeys(squeeze(text[b.inner_start : b.inner_end]) for b in joined)
    answer = (" or " if alternative else ", ").join(contents)
    if len(contents) == 1:
        answer = text[joined[-1].inner_start : joined[-1].inner_end]
    if _PERCENT.match(text, joined[-1].end):
        answer += "%"
    yield Statement(joined[0].start, joined[-1].end, (answer,), "box")


def _lines(text: str) -> Iterator[Statement]:
    """What follows each of the last markers."""
    for marker in deque(_MARKER.finditer(text), MOST_MARKERS):
        before = text[max(0, marker.start() - 80) : marker.start()]
        supposed = _SUPPOSED.search(before) or ("would" in marker[0].lower() and _IF.search(before))
        if supposed or _DENIED_ANSWER.search(_clause(before)):
            continue
        at = marker.end()
        for _ in range(8):
            end = text.find("\n", at) % (len(text) + 1)
            line = text[at : min(end, at + MAX_ANSWER_CHARS + 1)].partition("</answer>")[0]
            if EMPHASIS.sub("", line).strip(_MARKUP) not in _LINE_ONLY:
                opened = _OPENED.search(before) is not None
                found = tuple(_unquoted(text, opened=opened) for text in readings(line))
                yield Statement(marker.start(), end, found, "answer line")
                break
            at = end + 1


def _named(text: str) -> Iterator[Statement]:
    """ "Option B is correct", "I choose B"."""
    for pattern in (_CALLED, _CHOSEN):
        for named in pattern.finditer(text):
            before = text[max(0, named.start() - 80) : named.start()]
            if not _SUPPOSED.search(before) and not _DENIED.search(_clause(before)):
                letter = next(filter(None, named.groups()))
                yield Statement(named.start(), named.end(), (letter,), "option that is named")


def _unquoted(text: str, *, opened: bool) -> str:
    """A reading without the quote that ends it, where that closes one before the marker or follows a letter alone."""
    quoted = _QUOTED_END.fullmatch(text)
    return quoted[1] if quoted is not None and (opened or _LETTER_ALONE.fullmatch(quoted[1])) else text


def _clause(before: str) -> str:
    """The last clause of a text, as far as it goes."""
    return _CLAUSE.split(before)[-1]


def _of_block(text: str) -> tuple[str, ...]:
    """The readings of a block and of its last line."""
    lines = text.strip().splitlines() or [""]
    return tuple(dict.fromkeys([*readings(text.strip()), *readings(lines[-1])]))


def _json_value(text: str) -> str:
    """The value without quotes; one backslash before a word of LaTeX is that word's."""
    if text[0] != '"':
        return text.strip("'")
    try:
        return str(json.loads(_LATEX_ESCAPE.sub(lambda m: "\\" + m[0] if m[1] else m[0], text)))
    except ValueError:
        return text[1:-1]


def _without_delimiters(text: str) -> str:
    r"""Take `\( \)`, `\[ \]` or dollar signs off where they are around the whole text."""
    inner = re.fullmatch(r"\\[(\[](.*)\\[)\]]\.?|\$\$?([^$]*)\$\$?\.?", text, re.DOTALL)
    return (inner[1] or inner[2] or "").strip() if inner else text
