"""What a benchmark's file says of it: where it lies, what an item is, how it is asked and marked, what is published."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from vold.run.results import Published

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from fractions import Fraction

    from vold.data.benchmarks.item import Form, Item, ProtocolName
    from vold.data.files.hub import Layout
    from vold.data.files.read import Row
    from vold.run.answers import Answer

    Items = Mapping[str, Sequence[Answer]]
    """Stored answers by item, samples in order."""

VerdictName = Literal[
    "options",
    "yes_no",
    "mathvista",
    "mathvision",
    "mathverse",
    "logicvista",
    "dynamath",
    "visulogic",
    "olympiadbench",
    "short",
]
"""The ways in which VLMEvalKit comes to a verdict: `vold.evals.marking.as_vlmevalkit`."""

LayoutName = Literal["options", "counts", "versions", "settings", "dimensions", "sums", "figures"]
"""How tables of scores are laid out: `vold.evals.score_files`."""

PIXELS: Mapping[ProtocolName, tuple[int, int]] = {"vlmevalkit": (1280 * 28 * 28, 16384 * 28 * 28)}
"""Least and most pixels of a picture, by protocol: VLMEvalKit's for Qwen2.5-VL. Others leave it to the processor."""

DECODING: Mapping[str, tuple[int, float]] = {"vlmevalkit": (2048, 0.01)}
"""Most new tokens and the temperature that published figures have, by protocol: VLMEvalKit's for Qwen2.5-VL, which
takes the likeliest token (top_k 1)."""


@dataclass(frozen=True)
class PromptForm:
    """How a protocol asks. {question}, {options}, {query} and {instruction} are filled in.

    Every field but `differs` is part of the prompt's version unless it has its default.

    Attributes:
        option: one option, on a line of its own: {letter} and {text}.
        with_options: asked where the item has options.
        without_options: asked where it has none.
        query: asked in place of both where the row carries its own prompt.
        instruction: by the form of the answer.
        pictures: absent: at their first mention, those never mentioned in front; `mentioned`: as before, but those
            never mentioned are left out; `first`, `last`: all in front or behind, mentions stay in words, as `marker`
            says.
        marker: see `pictures`.
        again: a picture is shown at every mention.
        differs: in what it differs from the source's, or what of that could not be read; for people.
    """

    option: str = ""
    with_options: str = ""
    without_options: str = ""
    query: str = ""
    instruction: Mapping[Form, str] = field(default_factory=dict)
    pictures: Literal["", "mentioned", "first", "last"] = ""
    marker: str = ""
    again: bool = False
    differs: str = ""

    def content(self) -> Mapping[str, object]:
        """The fields that are set and shape the text: what the prompt's version is a digest of."""
        return {f.name: value for f in fields(self) if f.name != "differs" and (value := getattr(self, f.name))}


@dataclass(frozen=True)
class Judging:
    """How the `vlmevalkit` protocol has a judge model read an answer that no rule can read.

    Attributes:
        name: of these texts in the judge's identity.
        prompt: what the judge is asked; {question}, {options}, {response}, {answer} and {instruction} are filled in.
        system: the system's turn, if any.
        instruction: {instruction}, by the form of the answer.
        agreement: how the judge is asked whether an extracted answer is the gold, where a rule does not find so;
            {question}, {answer} and {extracted} are filled in.
        question: {question}: the item's own, all that was `asked`, or what a function makes of the item.
        response: {response}, made of what follows the thinking.
        answer: reads an answer in what follows the thinking, beside the places where every answer is looked for.
        one_option: the judge names one option, whatever the form of the answer.
        no_option: a word such as "Z" means that there is no answer, whatever the form.
        verdict: how VLMEvalKit itself comes to its verdict.
        correctness: the judge says whether the response is right, and extracts nothing.
        open: what is asked instead about a question whose answer is a text.
    """

    name: str
    prompt: str
    system: str = ""
    instruction: Mapping[Form, str] = field(default_factory=dict)
    agreement: str = ""
    question: Callable[[Item], str] | Literal["own", "asked"] = "own"
    response: Callable[[str], str] = str
    answer: Callable[[str], str | None] = lambda text: None
    one_option: bool = False
    no_option: bool = False
    verdict: VerdictName = "options"
    correctness: bool = False
    open: Judging | None = None

    def content(self) -> Mapping[str, object]:
        """Every text by its name: part of the judge's identity."""
        texts: dict[str, object] = {
            self.name + ("_extract" if self.agreement else ""): self.prompt,
            f"{self.name}_score": self.agreement,
            f"{self.name}_system": self.system,
            f"{self.name}_instruction": self.instruction,
        }
        found = {name: text for name, text in texts.items() if text}
        return {**found, **(self.open.content() if self.open is not None else {})}


@dataclass(frozen=True)
class ScoreFile:
    """The file of scores that VLMEvalKit writes of a benchmark (`vold.evals.score_files`).

    Attributes:
        name: VLMEvalKit's name of the data set, by split where there are several.
        layout: how the table is laid out.
        tags: of which tags there are rows or columns.
        end: how the file's name ends.
        judged: the file's name has the judge's in it.
        head: the heading of the rows.
        several: of these tags an item has several values, with `, ` between them: it counts in the row of each.
    """

    name: Mapping[str, str]
    layout: LayoutName
    tags: tuple[str, ...] = ()
    end: Literal["acc", "score"] = "score"
    judged: bool = False
    head: str = ""
    several: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """A benchmark by name.

    Attributes:
        name: in recipes.
        title: for people.
        repo: on the hub.
        files: how the files of each split lie in the repository, in their published names, the best way first; empty:
            a `path` must be given.
        size: how many items the published split has, by split; the first split is the one that figures are of.
        empty: how many of them have neither question nor answer, so that nobody asks them.
        adapt: `adapt(name, row)` makes an item of a row. Raises `DataError` for a row that cannot be asked or marked,
            and `MissingColumn` for a wrong layout.
        prompts: how each protocol asks; one that is not there is refused.
        keep: whether a row belongs (a benchmark may be a part of a data set).
        judging: what a judge is asked; if absent, to match the answer with the options (`wording.MCQ`).
        tolerance: floats are compared with this absolute tolerance, and not by rounding to a number of decimals.
        gold_is_a_text: the gold choice is an option's text: where two options read the same, either letter is right.
        published: figures that others measured.
        cluster_scores: derived scores that are means over clusters (the problems of a composite, the variants of a
            seed): by name and cluster.
        ratios: derived scores that are ratios of two sums over clusters: by name, one number a cluster for each sum.
        scale: the most that a derived score can be, where that is not 1 (MME's sums): by name.
        headline: what the field calls the benchmark's score, printed first: `accuracy` or derived scores.
        score_file: how VLMEvalKit writes its scores down; None where it has no such benchmark.
    """

    name: str
    title: str
    repo: str
    files: Mapping[str, Sequence[Layout]]
    size: Mapping[str, int]
    adapt: Callable[[str, Row], Item]
    prompts: Mapping[ProtocolName, PromptForm]
    keep: Callable[[Row], bool] = lambda _row: True
    judging: Judging | None = None
    tolerance: Fraction | None = None
    gold_is_a_text: bool = False
    empty: int = 0
    published: tuple[Published, ...] = ()
    cluster_scores: Callable[[Items], Mapping[str, Mapping[str, float]]] = lambda items: {}
    ratios: Callable[[Items], Mapping[str, tuple[Sequence[float], Sequence[float]]]] = lambda items: {}
    scale: Mapping[str, float] = field(default_factory=dict)
    headline: tuple[str, ...] = ("accuracy",)
    score_file: ScoreFile | None = None

    @property
    def split(self) -> str:
        """The usual split."""
        return next(iter(self.size))


@dataclass(frozen=True)
class DataSource:
    """Where published figures were read. `protocol` names the protocol of ours that the source used; any other word
    says that it used none of them, and its figures are never shown beside ours. `max_new_tokens` is None where the
    source does not say how long an answer could be."""

    name: str
    protocol: str
    note: str
    max_new_tokens: int | None = None

    def figures(
        self,
        benchmark: str,
        split: str,
        values: Mapping[str, float],
        *,
        metric: str = "accuracy",
        notes: Mapping[str, str] | None = None,
    ) -> tuple[Published, ...]:
        """Figures by model, in percent, as printed. `metric` is the mean over items, or a derived score."""
        tokens = self.max_new_tokens
        limit = "token limit unknown" if tokens is None else f"up to {tokens:,} new tokens"
        return tuple(
            Published(
                model=model,
                benchmark=benchmark,
                split=split,
                protocol=self.protocol,
                metric=metric,
                value=value,
                source=self.name,
                note="; ".join(filter(None, [(notes or {}).get(model, ""), self.note, limit])),
                max_new_tokens=tokens,
            )
            for model, value in values.items()
        )


def all_right(questions: Sequence[Sequence[Answer]]) -> float:
    """Share of draws in which every one of these questions, each with its answers by draw, is answered right."""
    return fmean([float(all(r.score >= 1.0 for r in draw)) for draw in zip(*questions, strict=False)])
