from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from chat_server import ChatServer, chat_client, completion, said
from vold.data.benchmarks.item import Form, Item
from vold.engines.chat_api import EndpointSampler
from vold.errors import CheckpointError, SamplerError
from vold.evals.marking.llm_judge import NO_ANSWER, Judge, infer_option, judge_prompt, score_vlmevalkit
from vold.graders import outcome
from vold.graders.outcome import JUDGE_FAILED
from vold.run.files import sums_of
from vold.run.recipe import Endpoint
from vold.types import Grade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXPECTED = Path(__file__).parent / "prompts_expected" / "judge"
PICTURE = Image.new("RGB", (4, 4), "red")
SYSTEM = (
    "You are a helpful assistant that helps me to format free-form answers into a short answer according to the"
    " instruction.\n"
)
HINT = (
    "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the"
    " end.\nQuestion: How many?\n(Unit: cm)"
)


def item(benchmark: str, gold: str, *options: str, form: Form = "choice", question: str = "What?", **more: Any) -> Item:
    return Item(benchmark, "7", question, options, (PICTURE,), gold, form, cluster="7", **more)


MMMU = item("mmmu", "B", "left", "right")
TEN = item("mmmu_pro_standard10", "I", *"abcdefghij", question="Which letter?")
PICTURED = item("mathvision", "D")
AREA = item("mathvision", r"\frac{36}{13}", form="math", question="Compare <image 1> and <image 2>.")
COUNT = item("mathvista", "14", form="integer", query=HINT)
PRICE = item("mathvista", "1.4", form="float", precision=1, query=HINT)
YEARS = item("mathvista", "[2007, 2008]", form="list", query=HINT)
ANGLE = item("mathverse", r"36^{\circ}", form="math", question="Find the angle.")
VERSE = item("mathverse", "C", question="Which?\nChoices:\nA:1\nB:2\nC:3\nD:4")
ONE = item("logicvista", "B", form="letters", question="Which one?")
TWO = item("logicvista", "A, C", form="letters", question="Which two?")
THREE = item("logicvista", "3", form="text", question="Which number?")
DYNA = item("dynamath", "0.333", form="float")
DYNA_CHOICE = item("dynamath", "B")
DYNA_TEXT = item("dynamath", "even", form="text")
STAR = item("mmstar", "B", "The cat", "The dog", question="Which option?")
WEMATH = item("wemath", "B", "1 cm", "No correct answer", question="What is it?")
CAT = item("mme", "A", "Yes", "No", question="Is it a cat?")
FOUR = item("emma_mini", "4", form="text", question="In a room.\n\nHow many?", for_judge="How many?")
OPEN = item("mmmu", "cat\ntom cat", form="text", question="Name it.")


class Bench:
    """A judge behind a real server that says `says`, a text or a function of the request."""

    def __init__(self, directory: Path) -> None:
        self.says: str | Callable[[dict[str, Any]], Any] = "unexpected"
        self.server = ChatServer(self._answer)
        self.directory = directory

    def _answer(self, body: dict[str, Any]) -> Any:
        return completion(self.says) if isinstance(self.says, str) else self.says(body)

    def judge(self, model: str = "judge") -> Judge:
        return Judge(chat_client(self.server.url, model=model), self.directory)

    def score(self, of: Item, response: str, says: str | Callable[[dict[str, Any]], Any]) -> Grade:
        self.says = says
        return score_vlmevalkit(of, response, self.judge())

    @property
    def asked(self) -> int:
        return len(self.server.bodies)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path / "judge")
    with found.server:
        yield found


# ---- what the judge is asked

R = "First {question}.\nIt could be A or B, I say \\frac{1}{2}."


@pytest.mark.parametrize(
    ("name", "of", "response"),
    [
        ("mcq", item("mmmu", "B", "left", "right", question="Look at <image 1>."), R),
        ("mcq_open", OPEN, R),
        ("mcq_vision", item("mmmu_pro_vision", "B", "left", "right", question=""), R),
        ("mcq_mmstar", STAR, R),
        ("wemath", WEMATH, R),
        ("yes_no", CAT, "It is neither."),
        ("short", FOUR, R),
        ("mathvista", COUNT, R),
        ("mathvision", AREA, R),
        ("mathverse", ANGLE, R),
        ("logicvista", TWO, R),
        ("dynamath_float", DYNA, R),
        ("dynamath_choice", DYNA_CHOICE, "I think so"),
        ("dynamath_text", DYNA_TEXT, "I think so"),
    ],
)
def test_judge_prompt_is_byte_for_byte_as_expected(name: str, of: Item, response: str) -> None:
    assert judge_prompt(of, response) == (EXPECTED / f"{name}.txt").read_bytes().decode()


@pytest.mark.parametrize(
    ("response", "says", "expected"),
    [
        ("Yes, there are two of them.", "not asked", 1.0),
        ("No: nothing of the kind.", "not asked", 0.0),
        ("There is no dog, so \\boxed{Yes}", "not asked", 1.0),
        ("That is a cat.", "Yes", 1.0),
        ("Yes and no.", "No", 0.0),
        ("I cannot tell.", "Unknown", 0.0),
    ],
)
def test_a_yes_or_no_needs_a_judge_only_where_it_is_not_said(
    bench: Bench, response: str, says: str, expected: float
) -> None:
    assert bench.score(CAT, response, says).score == expected
    assert bool(bench.server.bodies) == (says != "not asked")


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("[Begin Correctness]yes[End Correctness]\n[Begin Reason]As it says.[End Reason]", 1.0),
        ("[Begin Correctness] **No** [End Correctness]", 0.0),
        ("[Begin Correctness]yes and no[End Correctness]", None),
        ("yes", None),
    ],
)
def test_the_judge_says_whether_an_open_answer_of_emma_is_right(
    bench: Bench, says: str, expected: float | None
) -> None:
    grade = bench.score(FOUR, "There are as many as a car has wheels.", says)
    assert grade.score == (expected or 0.0)
    assert grade.note.startswith(JUDGE_FAILED) == (expected is None)
    assert outcome(grade) == {1.0: "right", 0.0: "wrong", None: "unparsed"}[expected]


def test_mathverse_is_asked_twice(bench: Bench) -> None:
    answers = iter(["Extracted Answer: 36 degrees {answer}", "1"])
    grade = bench.score(ANGLE, "It is 36 degrees.", lambda _: completion(next(answers)))
    assert (grade.score, grade.extracted) == (1.0, "36 degrees {answer}")
    extract, score = (said(b) for b in bench.server.bodies)
    assert extract == judge_prompt(ANGLE, "It is 36 degrees.")
    assert score == (EXPECTED / "mathverse_score.txt").read_bytes().decode()


def test_the_request_to_the_judge(bench: Bench) -> None:
    bench.score(DYNA, "About a third.", "0.333")
    bench.score(MMMU, "The one on that side, I would say, as far as can be seen.", "B")
    first, second = bench.server.bodies
    assert [m["role"] for m in first["messages"]] == ["system", "user"]
    assert first["messages"][0]["content"] == SYSTEM
    assert [m["role"] for m in second["messages"]] == ["user"]
    assert (first["max_tokens"], first["temperature"], first["model"]) == (128, 0.0, "judge")


# ---- what needs no judge


@pytest.mark.parametrize(
    ("of", "response", "score"),
    [
        (MMMU, r"So \boxed{B}.", 1.0),
        (MMMU, r"So \boxed{A}.", 0.0),
        (MMMU, r"\boxed{right}", 1.0),
        (MMMU, "Let me see.\nAnswer: B", 1.0),
        (MMMU, "<think>A? \\boxed{A}</think>The answer is (B).", 1.0),
        (MMMU, "B", 1.0),
        (MMMU, "It must be B.", 1.0),
        (TEN, "Answer: I", 1.0),
        (TEN, "Answer: J", 0.0),
        (PICTURED, "Therefore: D.", 1.0),
        (item("mathvista", "A", "Yes", "No"), "I see it in picture (A).", 1.0),
        (WEMATH, "<Thought process>: <<it is not 1 cm>> <Answer>: <<B>>", 1.0),
        (STAR, "B: The dog", 1.0),
        (COUNT, r"\boxed{14.0}", 1.0),
        (COUNT, r"\boxed{15}", 0.0),
        (PRICE, r"\boxed{1.44}", 1.0),
        (YEARS, r"\boxed{[2007, 2008]}", 1.0),
        (AREA, r"\boxed{36/13}", 1.0),
        (VERSE, r"\boxed{C}", 1.0),
        (VERSE, r"\boxed{C: 3}", 1.0),
        (ANGLE, r"\boxed{36^{\circ}}", 1.0),
        (TWO, r"\boxed{C, A}", 1.0),
        (TWO, r"\boxed{A}", 0.0),
        (DYNA, '{"solution": "\\frac{1}{3} \\text{is}", "short answer": "0.333"}', 1.0),
        (DYNA, '```json\n{"solution": "so", "short answer": 0.334}\n```', 1.0),
        (DYNA, '{"short answer": "0.335"}', 0.0),
        (DYNA_CHOICE, '{"solution": "A is not.", "short answer": "B"}', 1.0),
        (DYNA_TEXT, '{"solution": "so", "short answer": "Even"}', 1.0),
        (OPEN, r"\boxed{Tom cat}", 1.0),
    ],
)
def test_what_a_rule_can_read_is_not_asked(bench: Bench, of: Item, response: str, score: float) -> None:
    grade = bench.score(of, response, "Z")
    assert (grade.score, bench.asked) == (score, 0)


@pytest.mark.parametrize(
    ("response", "finish", "heading"),
    [
        (r"so \boxed{B}, or rather", "length", "truncated"),
        ("<think>it is B", "length", "truncated"),
        ("<think>it is B", "stop", "truncated"),
        ("<think>it is B</think> \n", "stop", "unparsed"),
        ("", "stop", "unparsed"),
    ],
)
def test_what_is_not_there_is_not_asked(bench: Bench, response: str, finish: Any, heading: str) -> None:
    grade = score_vlmevalkit(MMMU, response, bench.judge(), finish=finish)
    assert (grade.score, grade.extracted, outcome(grade, finish), bench.asked) == (0.0, None, heading, 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("C", "C"),
        ("(C)", "C"),
        ("We choose option C.", "C"),
        ("I choose option C.", None),  # there is an option I
        ("So B, no: C", None),
        ("C is what we would choose if we had to choose", None),  # not near the end
        ("A triangle, so D", None),
        ("B is wrong, A is right", None),
        ("A triangle it is", None),
        ("I am unsure", None),
        ("That is I", "I"),
        ("the total is 150", None),
        ("the total is 15", "B"),
        ("12 or 15", None),
        ("12.", "A"),
        ("12. " + "x" * 40, None),  # longer than twice all options: an option's text may stand in it by chance
        ("BANANA", None),
        ("", None),
    ],
)
def test_options_named_in_running_text(text: str, found: str | None) -> None:
    options = {"A": "12", "B": "15", "C": "seven", "D": "$x$", "I": "e"}
    assert infer_option(text, options) == found


# ---- what the judge says

VAGUE = "Taken together the evidence points to the one named in the passage above, as we have seen at length."


@pytest.mark.parametrize(
    ("of", "reply", "score", "extracted"),
    [
        (MMMU, "B", 1.0, "B"),
        (MMMU, "A", 0.0, "A"),
        (MMMU, "Your output: B", 1.0, "B"),
        (MMMU, "B. right", 1.0, "B"),
        (MMMU, "<think>A or B?</think>\n\nB", 1.0, "B"),
        (TEN, "I", 1.0, "I"),
        (PICTURED, "The correct answer is (D)", 1.0, "D"),
        (WEMATH, "B", 1.0, "B"),
        (STAR, "B", 1.0, "B"),
        (COUNT, "14", 1.0, "14"),
        (COUNT, "Extracted answer: 14.0", 1.0, "14.0"),
        (PRICE, "1.44", 1.0, "1.44"),
        (PRICE, "1.45000001", 0.0, "1.45000001"),
        (YEARS, "[2007, 2008]", 1.0, "[2007, 2008]"),
        (AREA, r"\frac{36}{13}", 1.0, r"\frac{36}{13}"),
        (AREA, "36/14", 0.0, "36/14"),
        (VERSE, "Extracted Answer: C", 1.0, "C"),
        (TWO, "AC", 1.0, "A, C"),
        (TWO, "C, A", 1.0, "A, C"),
        (TWO, "CA", 1.0, "A, C"),
        (TWO, "The letters are A and C.", 1.0, "A, C"),
        (ONE, "B.", 1.0, "B"),
        (ONE, "(B)", 1.0, "B"),
        (ONE, "Option B", 1.0, "B"),
        (ONE, "The letter is B", 1.0, "B"),
        (ONE, "b", 1.0, "B"),
        (TWO, "A", 0.0, "A"),
        (TWO, "ABCDE", 0.0, "A, B, C, D, E"),
        (THREE, "3", 1.0, "3"),
        (DYNA, "0.333", 1.0, "0.333"),
        (DYNA, "0.340", 0.0, "0.340"),
        (DYNA_CHOICE, "B", 1.0, "B"),
        (DYNA_TEXT, "even", 1.0, "even"),
        (DYNA_TEXT, "e", 0.0, "e"),
        (OPEN, "A", 1.0, "A"),
        (OPEN, "B", 0.0, "B"),
    ],
)
def test_the_extracted_answer_is_compared_by_rule(
    bench: Bench, of: Item, reply: str, score: float, extracted: str
) -> None:
    grade = bench.score(of, VAGUE, reply)
    assert (grade.score, grade.extracted, bench.asked) == (score, extracted, 1)


@pytest.mark.parametrize(
    ("of", "reply", "score", "extracted"),
    [
        (MMMU, "B\nThe answer mentions point A.", 1.0, "B"),
        (MMMU, "B\n\nExplanation: option A is wrong.", 1.0, "B"),
        (MMMU, "**B**\nThe answer is B.", 1.0, "B"),
        (MMMU, "The response says left.\nB", 1.0, "B"),
        (MMMU, "A. left\nB. right\nYour output: B", 1.0, "B"),
        (MMMU, "Z\nThe answer mentions point A.", 0.0, None),
        (CAT, "Yes\nThe answer says that there is no dog.", 1.0, "A"),
        (TWO, "A, C\nB is ruled out by the response.", 1.0, "A, C"),
        (COUNT, "14\n\nThe response says 14 people.", 1.0, "14"),
        (COUNT, "The response counts people.\n14", 1.0, "14"),
    ],
)
def test_the_first_line_is_the_reply_where_it_is_an_answer_alone(
    bench: Bench, of: Item, reply: str, score: float, extracted: str | None
) -> None:
    grade = bench.score(of, VAGUE, reply)
    assert (grade.score, grade.extracted) == (score, extracted)


@pytest.mark.parametrize(
    ("of", "reply"),
    [(MMMU, "B\nA"), (MMMU, "B\n\nThe answer is A."), (MMMU, "B\nZ"), (COUNT, "14\n15"), (CAT, "Yes\nNo")],
)
def test_a_reply_of_two_answers_cannot_be_used(bench: Bench, of: Item, reply: str) -> None:
    assert bench.score(of, VAGUE, reply).note.startswith(f"{JUDGE_FAILED}: two answers")


@pytest.mark.parametrize(
    ("of", "reply"),
    [(MMMU, "Z"), (MMMU, "<think>A?</think>Z."), (TWO, "Z"), (TWO, "ZZZZZ"), (THREE, "Z"), (COUNT, "None")],
)
def test_an_answer_that_the_judge_finds_nowhere(bench: Bench, of: Item, reply: str) -> None:
    assert bench.score(of, VAGUE, reply) == Grade(0.0, None, NO_ANSWER)


def test_z_may_be_the_answer_to_a_question_of_algebra(bench: Bench) -> None:
    assert bench.score(item("mathvision", "z", form="math"), VAGUE, "z").score == 1.0


@pytest.mark.parametrize(
    ("of", "reply"),
    [
        (MMMU, "I cannot tell."),
        (MMMU, "C"),
        (MMMU, "A and B"),
        (MMMU, ""),
        (MMMU, "   "),
        (TWO, "probably"),
        (COUNT, "fourteen or so"),
        (DYNA, "no idea"),
        (AREA, "{"),
    ],
)
def test_a_reply_that_cannot_be_used_scores_nothing_and_is_counted(bench: Bench, of: Item, reply: str) -> None:
    grades = [bench.score(of, VAGUE, reply) for _ in range(3)]
    assert {g.score for g in grades} == {0.0}
    assert all(g.extracted is None and g.note.startswith(JUDGE_FAILED) for g in grades)
    assert {outcome(g) for g in grades} == {"unparsed"}


@pytest.mark.parametrize("attack", ["__import__('os').system('touch {file}')", "open('{file}', 'w')"])
def test_nothing_a_model_says_is_run(bench: Bench, tmp_path: Path, attack: str) -> None:
    file = tmp_path / "harm"
    for of in (MMMU, AREA, COUNT, YEARS, DYNA, ANGLE):
        bench.score(of, attack.format(file=file), attack.format(file=file))
    assert not file.exists()


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("1", 1.0),
        ("0", 0.0),
        ("Judgement: 1", 1.0),
        ("**Judgment: 0**\nThey differ.", 0.0),
        ("Judement is 1", 1.0),
        ("Judgement: 0\nCorrection: Judgement: 1", 1.0),
        ("<think>Judgement: 1</think>0", 0.0),
    ],
)
def test_mathverse_agreement(bench: Bench, reply: str, score: float) -> None:
    grade = bench.score(ANGLE, r"\boxed{thirty-six degrees}", reply)
    assert (grade.score, grade.extracted, bench.asked) == (score, "thirty-six degrees", 1)
    assert grade.note == ("equal: says the judge" if score else "different: says the judge")


def test_a_question_in_the_picture_is_told_to_the_judge_in_words(bench: Bench) -> None:
    of = dataclasses.replace(ANGLE, question="", for_judge="Find angle 1 of the figure.")
    bench.score(of, r"\boxed{thirty-six degrees}", "1")
    assert "Find angle 1 of the figure." in said(bench.server.bodies[-1])


def test_mathverse_agreement_that_cannot_be_read(bench: Bench) -> None:
    assert bench.score(ANGLE, r"\boxed{thirty-six degrees}", "They agree.").note.startswith(JUDGE_FAILED)


# ---- replies are kept


def test_marking_again_asks_nothing_and_gives_the_same(bench: Bench) -> None:
    first = [bench.score(of, VAGUE, "B") for of in (MMMU, STAR, WEMATH)]
    assert bench.asked == 3
    again = [bench.score(of, VAGUE, "A") for of in (MMMU, STAR, WEMATH)]
    assert (again, bench.asked) == (first, 3)


def test_another_judge_is_asked_afresh(bench: Bench) -> None:
    bench.score(MMMU, VAGUE, "B")
    bench.says = "A"
    other = bench.judge("another")
    assert score_vlmevalkit(MMMU, VAGUE, other).extracted == "A"
    assert other.file != bench.judge().file


def test_replies_belong_to_a_model_and_all_it_was_told(bench: Bench) -> None:
    bench.says = lambda body: completion(f"{body['model']}: {body['messages'][0]['content']}")
    judge = bench.judge()
    assert [judge.ask("p"), judge.ask("p", "s"), judge.ask("p")] == ["judge: p", "judge: s", "judge: p"]
    other = bench.judge("another")
    other.file.write_text(judge.file.read_text())
    assert bench.judge("another").ask("p") == "another: p"
    assert bench.asked == 3


def test_a_line_cut_short_by_a_kill_is_asked_again(bench: Bench) -> None:
    bench.score(MMMU, VAGUE, "B")
    bench.score(STAR, VAGUE, "B")
    file = bench.judge().file
    file.write_text(file.read_text()[:-10])
    for of in (MMMU, STAR, WEMATH):
        assert bench.score(of, VAGUE, "B").score == 1.0
    assert bench.asked == 4
    assert len(bench.judge().replies) == 3


def test_a_judge_that_dies_is_a_clear_error_that_loses_nothing(bench: Bench) -> None:
    bench.score(MMMU, VAGUE, "B")
    with pytest.raises(SamplerError) as caught:
        bench.score(STAR, VAGUE, lambda _: None)
    assert caught.value.what == "the judge: no server answers"
    assert bench.server.url in caught.value.where
    assert str(bench.judge().file) in caught.value.fix
    before = bench.asked
    assert [bench.score(of, VAGUE, "B").score for of in (MMMU, STAR)] == [1.0, 1.0]
    assert bench.asked == before + 1


def test_a_passing_failure_of_the_judge_is_tried_again(bench: Bench) -> None:
    answers = iter([(503, "busy"), None, completion("B")])
    assert bench.score(MMMU, VAGUE, lambda _: next(answers)).score == 1.0


def refuse_long(body: dict[str, Any]) -> Any:
    return (400, '{"error": {"message": "too long"}}') if "long" in said(body)[-60:] else completion("B")


def test_a_refused_question_is_counted_and_not_kept(bench: Bench) -> None:
    grade = bench.score(MMMU, f"{VAGUE} And so on, long.", refuse_long)
    assert grade == Grade(0.0, None, f"{JUDGE_FAILED}: it refused: status 400: too long")
    assert bench.score(MMMU, f"{VAGUE} And so on, long.", "B").score == 1.0


def test_a_judge_that_refuses_everything_is_an_error(bench: Bench) -> None:
    with pytest.raises(SamplerError, match="the judge: the server refuses every request"):
        bench.score(MMMU, VAGUE, lambda _: (400, "use max_completion_tokens"))


def test_a_judge_that_only_thinks_is_an_error(bench: Bench) -> None:
    thinking = completion(None, reasoning_content="Let me see", finish="length")
    with pytest.raises(SamplerError, match="not enough for its thinking") as caught:
        bench.score(MMMU, VAGUE, lambda _: thinking)
    assert "does not think" in caught.value.fix
    assert not bench.judge().replies


def test_several_threads_may_ask(bench: Bench) -> None:
    bench.says = "B"
    judge = bench.judge()
    grades: dict[int, Grade] = {}

    def mark(n: int) -> None:
        grades[n] = score_vlmevalkit(MMMU, f"{VAGUE} {n % 10}", judge)

    threads = [threading.Thread(target=mark, args=(n,)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [g.score for g in grades.values()] == [1.0] * 40
    assert len(bench.judge().replies) == 10


def test_a_question_that_is_answered_twice_in_the_file_is_named(bench: Bench) -> None:
    bench.score(MMMU, VAGUE, "B")
    bench.score(MMMU, f"{VAGUE} And so on.", "B")
    file = bench.judge().file
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines, lines[0]]))
    sums_of(file).unlink()
    with pytest.raises(CheckpointError, match="a second reply to one question") as caught:
        bench.judge()
    assert caught.value.where == f"{file}: line 3"


# ---- identity


def test_the_identity_names_the_model_and_its_prompts(bench: Bench) -> None:
    identity = bench.judge("gpt-4o-mini").identity
    assert identity.startswith("gpt-4o-mini (")
    assert identity == bench.judge("gpt-4o-mini").identity != bench.judge("other").identity


def test_a_judge_is_built_from_a_recipe(tmp_path: Path) -> None:
    judge = Judge(EndpointSampler(Endpoint(urls=("http://h/v1",), model="m")), tmp_path)
    assert judge.file.parent == tmp_path
