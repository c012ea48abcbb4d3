"""Every value that crosses a module border, frozen, with an example of each.

Terms, as the field uses them:

    completion        the ids sampled after a prompt, with their log-probs; those of one prompt are a group
    rollout           a completion, its grade, the teacher's scores, and what each token is credited with
    action            a token that the model chose, not a tool
    behaviour         the policy that sampled, at the sampling temperature; "old" in a ratio
    student, teacher  the model that learns; the frozen one that it is compared with
    log-prob          natural logarithm of a token's probability after all before it, in nats
    candidates        the K likeliest ids at a position, the likeliest first
    advantage         how much better a token was than expected, the weight of its policy gradient

One rollout whose model calls a tool, reads the answer and goes on. Its arrays are read-only and of one length:

    prompt_ids | completion.ids        5     8     2  |  61    62 |   9     2    int32
               | action_mask           1     1     1  |   0     0 |   1     1    bool; a loss reads actions alone
               | logps               -.1   -.4   -.0  |   0     0 | -.7   -.1    float32, behaviour log-probs
               | teacher.logp        -.2   -.3   -.1  |  -9    -9 | nan   -.2    float32, nan: it has no score here
               | advantage            .5    .5    .5  |   0     0 |  .5    .5    float32, from `vold.objective.credit`
               | teacher_weight      1.0   1.0   1.0  |   0     0 |   0   1.0    float32, factor in the teacher loss
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vold.errors import DataError
from vold.types.arrays import Array, Arrays, MaybeArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Ids = NDArray[np.int32]
    Values = NDArray[np.float32]
    Flags = NDArray[np.bool_]

Finish = Literal["stop", "length"]
"""Why a response ended: the model emitted its end token, or the token budget ran out."""

IMAGE_MARKER = "<image>"
"""Where a picture stands in a message's text."""


@dataclass(frozen=True)
class Message:
    """One chat turn.

    Each `<image>` in `text` is the place of one of `images`; without markers they are shown first.

    Example:
        >>> Message(role="user", text="digits 3 5 . sum ?").role
        'user'
    """

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[Image, ...] = ()

    def parts(self) -> Iterator[str | Image]:
        """Texts and pictures in the order in which they are shown; blank texts between pictures are left out.

        Raises:
            DataError: another number of markers than pictures.

        Example:
            >>> list(Message("user", "digits 3 5 . sum ?").parts())
            ['digits 3 5 . sum ?']
        """
        if not self.images:
            yield self.text
            return
        texts = self.text.split(IMAGE_MARKER)
        if len(texts) == 1:
            texts = [""] * len(self.images) + texts
        if len(texts) != len(self.images) + 1:
            raise DataError(
                f"a message has {len(texts) - 1} {IMAGE_MARKER} markers but {len(self.images)} images",
                got=self.text[:100],
                fix="write one marker an image, or none to show all images first",
            )
        for i, text in enumerate(texts):
            if i:
                yield self.images[i - 1]
            if text.strip():
                yield text


@dataclass(frozen=True)
class Task:
    """A problem with a reference answer.

    `teacher_messages` is what a text-only teacher is asked; None means the problem has no text view, so only the
    outcome reward can be learnt from it. `tags` are strings to group results by; of training, `teacher.routes` and
    masks read them. `reference` is "" where no answer is known; only `vold traces` takes such tasks. `response` is a
    solution in the data. `shows`, if known: the word behind which a response repeats its pictures, and what is right.

    Example:
        >>> Task(id="sum-1", messages=(Message("user", "digits 3 5 . sum ?"),), reference="8", grader="exact").tags
        {}
    """

    id: str
    messages: tuple[Message, ...]
    reference: str
    grader: str
    teacher_messages: tuple[Message, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    response: str | None = None
    shows: str = ""


@dataclass(frozen=True, eq=False)
class Completion(Arrays):
    """One sampled response. `ids` includes the end token when `finish` is "stop"; `logps` are behaviour log-probs.
    `candidate_ids` [response, k] are candidates as far as they were asked for; rows where a tool wrote are not read.
    `support_ids` [response, k] are the ids that a truncated sampler kept, the likeliest first, -1 after the last; None
    where it was not asked for them, or nothing was cut off.

    Example:
        >>> Completion(ids=(5, 2), logps=(-0.1, -0.2), action_mask=(1, 1), finish="stop").ids
        array([5, 2], dtype=int32)
    """

    ids: Array[np.int32] = Array("int32")
    logps: Array[np.float32] = Array("float32")
    action_mask: Array[np.bool_] = Array("bool")
    finish: Finish = "stop"
    candidate_ids: MaybeArray[np.int32] = MaybeArray("int32")
    support_ids: MaybeArray[np.int32] = MaybeArray("int32")


@dataclass(frozen=True)
class Grade:
    """A verdict: `score` in [0, 1], made of `scores` if of any; what was `extracted` (None: nothing); a `note` why.

    Example:
        >>> Grade(score=1.0, extracted="8", note="equal").score
        1.0
    """

    score: float
    extracted: str | None
    note: str
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pictures:
    """A prompt's pictures, in order, for a server that prepares them itself. `ids` are the prompt's with one id in the
    place of each picture, `task` is the id of its task, for messages.

    Example:
        >>> Pictures(images=(), ids=(1, 2, 3), task="sum-1").task
        'sum-1'
    """

    images: tuple[Image, ...]
    ids: tuple[int, ...]
    task: str = ""


@dataclass(frozen=True, eq=False)
class ScoreRequest(Arrays):
    """What a teacher is asked: log-probs of `response_ids` after `prompt_ids`.

    `candidate_ids` [response, k] are further ids whose log-probs are wanted too (the student's top k, say). `top_k`
    above 0 asks for the teacher's own likeliest ids. `vision`, `pictures` and `route` are the prompt's.

    Example:
        >>> ScoreRequest(prompt_ids=(1, 2), response_ids=(5, 2)).response_ids
        array([5, 2], dtype=int32)
    """

    prompt_ids: tuple[int, ...]
    response_ids: Array[np.int32] = Array("int32")
    candidate_ids: MaybeArray[np.int32] = MaybeArray("int32")
    top_k: int = 0
    vision: Mapping[str, Any] = field(default_factory=dict, compare=False)
    pictures: Pictures | None = field(default=None, compare=False)
    route: str = field(default="", compare=False)


@dataclass(frozen=True, eq=False)
class TokenScores(Arrays):
    """A teacher's answer: `logp` (nats) of each response token, same length as the response.

    `candidate_logp` [response, k] answers `candidate_ids`; `top_ids` and `top_logp` [response, top_k], likeliest
    first, answer `top_k`. `aligned` is False on tokens that a teacher with another tokenizer has no score for (NaN
    there): they take no part in anything. None: every token has one.

    Example:
        >>> TokenScores(logp=(-0.3, -0.01)).logp
        array([-0.3 , -0.01], dtype=float32)
    """

    logp: Array[np.float32] = Array("float32")
    candidate_logp: MaybeArray[np.float32] = MaybeArray("float32")
    top_ids: MaybeArray[np.int32] = MaybeArray("int32")
    top_logp: MaybeArray[np.float32] = MaybeArray("float32")
    aligned: MaybeArray[np.bool_] = MaybeArray("bool")


@dataclass(frozen=True, eq=False)
class Rollout(Arrays):
    """A graded response and everything the objective needs to know about it.

    `group` numbers the prompt within the step. `teacher` is None where the objective has no use for the teacher's
    opinion, or the task has no text view. `source` says who wrote it: the student, or the teacher whose traces are
    mixed in. `reference_logp` and `old_logp` are log-probs of the student as the stage began and as the step began,
    where the objective uses them; `contrast_logp` those of the teacher's base, or of the teacher without the picture.
    `tags` are the task's. `version` counts the steps whose updates the weights had behind them that sampled it; None of
    the teacher's traces. `vold.objective.credit` fills the rest, one number a token: `advantage`; `live_weight`, of
    a teacher reward taken at the time of the update; `teacher_weight`, that of the teacher loss. `token_values` and
    `rollout_values` hold by name what these were made of.

    Example:
        >>> c = Completion((5, 2), (-0.1, -0.2), (1, 1), "stop")
        >>> Rollout("sum-1", 0, prompt_ids=(1,), completion=c, grade=Grade(0.0, "7", "wrong")).teacher is None
        True
    """

    task_id: str
    group: int
    prompt_ids: tuple[int, ...]
    completion: Completion
    grade: Grade
    teacher: TokenScores | None = None
    advantage: MaybeArray[np.float32] = MaybeArray("float32")
    source: Literal["student", "teacher"] = "student"
    live_weight: MaybeArray[np.float32] = MaybeArray("float32")
    teacher_weight: MaybeArray[np.float32] = MaybeArray("float32")
    token_values: Mapping[str, Values] = field(default_factory=dict)
    rollout_values: Mapping[str, float] = field(default_factory=dict)
    reference_logp: MaybeArray[np.float32] = MaybeArray("float32")
    old_logp: MaybeArray[np.float32] = MaybeArray("float32")
    version: int | None = None
    contrast_logp: MaybeArray[np.float32] = MaybeArray("float32")
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplingParams:
    """How to sample. `temperature` 0 is greedy. `candidates` above 0 asks for as many likeliest ids at every position.
    A row's random numbers depend on `seed` and its place alone; the call's first row has place `first_row`.

    Of a token's distribution the `top_k` likeliest ids are kept (0: all), of those the ones at least `min_p` times as
    likely as the likeliest, and of those the fewest that have `top_p` of the rest's mass. `kept` above 0 bounds their
    number and asks for them (`Completion.support_ids`). A response ends with the token with which its text holds one of
    the strings of `stop`, as with the end token, which it then lacks.

    Example:
        >>> SamplingParams(max_new_tokens=8).temperature
        1.0
    """

    max_new_tokens: int
    temperature: float = 1.0
    seed: int = 0
    candidates: int = 0
    first_row: int = 0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    kept: int = 0
    stop: tuple[str, ...] = ()

    @property
    def narrowing(self) -> dict[str, float]:
        """What cuts something off, by name."""
        found = {"top_p": (self.top_p, 1), "top_k": (self.top_k, 0), "min_p": (self.min_p, 0)}
        return {name: value for name, (value, off) in found.items() if value != off}

    @property
    def asked(self) -> dict[str, Any]:
        """What is beyond length, temperature and seed, by the names that servers have for it."""
        return {**self.narrowing, **({"stop": list(self.stop)} if self.stop else {})}

    @property
    def most_kept(self) -> int:
        """How many ids are kept at most; 0 for all."""
        return self.kept or self.top_k


@dataclass(frozen=True)
class Prompt:
    """A tokenised prompt; its `ids` are a tuple, by which prompts are told apart. `vision` holds the processor's image
    tensors and is opaque to everything but the policy; `pictures` is what these were made from, `task` its task's id,
    `route` the teacher of several that is asked it.

    Example:
        >>> Prompt(ids=(1, 2, 3)).vision
        {}
    """

    ids: tuple[int, ...]
    vision: Mapping[str, Any] = field(default_factory=dict)
    pictures: Pictures | None = field(default=None, compare=False)
    task: str = field(default="", compare=False)
    route: str = field(default="", compare=False)

    def then(self, ids: Sequence[int]) -> Prompt:
        """The prompt with further ids at its end."""
        shown = self.pictures and replace(self.pictures, ids=(*self.pictures.ids, *ids))
        return Prompt((*self.ids, *ids), self.vision, shown, self.task, self.route)


class Grader(Protocol):
    """Marks a response. Never raises on model text: what cannot be read is a score of 0 with a note."""

    def __call__(self, response: str, reference: str, *, finish: Finish = "stop") -> Grade:
        """Mark `response` against `reference`."""


class Teacher(Protocol):
    """A text-only model seen as a function from token ids to log-probs."""

    def score(self, requests: Sequence[ScoreRequest]) -> list[TokenScores]:
        """Log-probs of every response token, in request order."""


class Sampler(Protocol):
    """Samples `n` responses for each prompt, in prompt order."""

    def generate(self, prompts: Sequence[Prompt], params: SamplingParams, n: int = 1) -> list[list[Completion]]:
        """`n` completions of each prompt."""


@runtime_checkable
class StreamingSampler(Sampler, Protocol):
    """A sampler that hands over each prompt's responses when they are whole, before others are."""

    def stream(
        self, prompts: Sequence[Prompt], params: SamplingParams, n: int, whole: Callable[[int, list[Completion]], None]
    ) -> list[list[Completion]]:
        """As `generate`. `whole` is called with the place of a prompt and its completions, in any order, in the
        caller's thread; again for all prompts where they had to be sampled anew."""


class TaskSource(Protocol):
    """An indexable, finite set of tasks."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Task: ...
