"""A teacher with another tokenizer: what is aligned, what it scores, and what is refused."""

from __future__ import annotations

import contextlib
import json
import math
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

import published
import tiny
from vold.engines.teachers.aligned import AlignedTeacher, Aligner, aligned_share
from vold.engines.teachers.inprocess import InProcessTeacher
from vold.engines.teachers.token_bytes import BYTE_LETTERS, Spelling, shared_spans
from vold.errors import ConfigError, DataError, VocabularyMismatch
from vold.evals.overlap import align, verdict
from vold.model.chat import Chat
from vold.model.policy import Policy
from vold.run.files import read_jsonl
from vold.run.recipe import recipe_from
from vold.run.summaries import Overlap
from vold.training.distill import distill
from vold.training.traces import make_traces
from vold.types import Message, ScoreRequest, TokenScores

SPECIAL = ["<|im_start|>", "<|im_end|>", "<think>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = ["digits 3 5 . sum ? the sum of 3 and 5 is 8", "so the answer is \\boxed{8}", "größer als zwölf, 日本語"] * 4


def byte_level(merges: int, special: list[str] = SPECIAL, *, order: int = 0) -> Any:
    """Byte-level BPE over all 256 bytes; `order` seeds a permutation of the ids of its tokens."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False)
    )
    if order:
        state: Any = json.loads(raw.to_str())
        shuffle = torch.randperm(len(state["model"]["vocab"]), generator=torch.Generator().manual_seed(order)).tolist()
        state["model"]["vocab"] = {token: shuffle[i] for token, i in state["model"]["vocab"].items()}
        raw = Tokenizer.from_str(json.dumps(state))
    return wrap(raw, special)


def wrap(raw: Tokenizer, special: list[str] = SPECIAL) -> Any:
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>")
    made.add_special_tokens({"additional_special_tokens": [s for s in special if s != "<|im_end|>"]})
    made.chat_template = TEMPLATE
    return made


def with_byte_fallback() -> Any:
    """SentencePiece's kind: a blank in front, blanks as U+2581, bytes where there is no letter."""
    tokens = [f"<0x{i:02X}>" for i in range(256)] + ["<unk>", "▁", "▁s", "um", "u", "m", "s", "▁sum"]
    merges = [("▁", "s"), ("u", "m"), ("▁s", "um")]
    raw = Tokenizer(
        models.BPE({t: i for i, t in enumerate(tokens)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return wrap(raw)


def aligner(student: Any, teacher: Any) -> Aligner:
    return Aligner(student, teacher, where="teacher.path: test")


def spelled(tokenizer: Any, ids: Any) -> bytes:
    """Independent of the code under test: letters of byte-level BPE back to bytes by the library's own decoder."""
    return b"".join(bytes(BYTE_LETTERS[x] for x in tokenizer.convert_ids_to_tokens(int(i))) for i in ids)


class Counting:
    """A teacher whose log-probs are known: token t of a response has -(t + 1), candidate c has -c."""

    def __init__(self) -> None:
        self.asked: list[ScoreRequest] = []

    def score(self, requests: Any) -> list[TokenScores]:
        self.asked += requests
        return [
            TokenScores(
                tuple(-float(t + 1) for t in range(len(r.response_ids))),
                None if r.candidate_ids is None else tuple(tuple(-float(c) for c in row) for row in r.candidate_ids),
            )
            for r in requests
        ]


# -- spans ------------------------------------------------------------------------------------------------------------


def test_a_token_has_the_run_of_tokens_that_spells_exactly_its_bytes() -> None:
    """ab|c|de|f against a|b|cd|e|f: ab is a+b; c ends inside cd; de begins inside cd; f is f."""
    assert shared_spans([b"ab", b"c", b"de", b"f"], [b"a", b"b", b"cd", b"e", b"f"]) == [(0, 2), None, None, (4, 5)]
    assert shared_spans([b"abc"], [b"abc"]) == [(0, 1)]
    assert shared_spans([b"a", b"", b"b"], [b"ab"]) == [None, None, None]
    assert shared_spans([], []) == []


CUTS = st.binary(min_size=1, max_size=12).flatmap(
    lambda raw: st.tuples(
        st.just(raw), *(st.sets(st.integers(1, len(raw) - 1) if len(raw) > 1 else st.nothing()) for _ in range(2))
    )
)


@given(CUTS)
def test_exactly_the_tokens_with_both_ends_on_boundaries_have_a_run(cuts: tuple[bytes, set[int], set[int]]) -> None:
    raw, one, two = cuts
    ours, theirs = ([raw[a:b] for a, b in pairwise([0, *sorted(c), len(raw)])] for c in (one, two))
    edges = {0, *two, len(raw)}
    ends = list(accumulate(map(len, ours)))
    for piece, end, span in zip(ours, ends, shared_spans(ours, theirs), strict=True):
        assert (span is not None) == (end in edges and end - len(piece) in edges)
        if span is not None:
            assert b"".join(theirs[span[0] : span[1]]) == piece


def test_the_letters_of_bytes_are_those_of_the_tokenizers_library() -> None:
    assert sorted(BYTE_LETTERS) == sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = bytes(range(128)).decode()
    found = "".join(piece for piece, _ in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(raw))
    assert [BYTE_LETTERS[x] for x in found] == list(range(128))
    for text in ("é", "日", "😀"):
        ((found, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        assert bytes(BYTE_LETTERS[x] for x in found) == text.encode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=24))
def test_what_is_aligned_spells_the_same_bytes(text: str) -> None:
    ours, theirs = byte_level(60), byte_level(12, order=3)
    ids = ours(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found = aligner(ours, theirs).align(ids)
    assert spelled(theirs, found.ids) == text.encode()
    for i, span in zip(ids, found.spans, strict=True):
        if span is not None:
            assert spelled(theirs, found.ids[span[0] : span[1]]) == spelled(ours, [i])
    # Whole characters of ASCII are single tokens or runs of them on the side with fewer merges, so boundaries meet.
    assert found.spans[:1] != (None,) or not text.isascii()


def test_sentencepiece_pieces_and_bytes_align_with_byte_level_ones() -> None:
    """ " sum" and "ü" (two bytes) against a tokenizer of single bytes: runs of 4, and of 1 and 1."""
    ours, theirs = with_byte_fallback(), byte_level(0)
    ids = ours.convert_tokens_to_ids(["▁sum", "<0xC3>", "<0xBC>", "<|im_end|>"])
    found = aligner(ours, theirs).align(ids)
    assert found.spans == ((0, 4), (4, 5), (5, 6), (6, 7))
    assert spelled(theirs, found.ids[:6]) == " sumü".encode()
    assert found.ids[6] == theirs.eos_token_id


def test_the_blank_that_sentencepiece_puts_in_front_is_not_part_of_the_text() -> None:
    """ "sum" becomes ▁sum: its bytes here are those of the text, three of them."""
    theirs = with_byte_fallback()
    found = Spelling(theirs, where="t").cut(b"sum sum")
    assert found == [(theirs.convert_tokens_to_ids("▁sum"), b"sum"), (theirs.convert_tokens_to_ids("▁sum"), b" sum")]


def test_special_tokens_go_by_name_and_unknown_ones_are_read_as_text() -> None:
    ours, theirs = byte_level(0), byte_level(0, ["<|im_end|>"])
    think, end, a = (ours.convert_tokens_to_ids(t) for t in ("<think>", "<|im_end|>", "a"))
    both = aligner(ours, byte_level(0)).align([think, a, end])
    assert both.spans == ((0, 1), (1, 2), (2, 3))
    found = aligner(ours, theirs).align([think, a, end])
    assert found.spans == (None, (7, 8), (8, 9))
    assert spelled(theirs, found.ids[:8]) == b"<think>a"
    assert found.ids[8] == theirs.eos_token_id


@given(st.binary(max_size=12))
def test_bytes_that_are_no_text_are_spelled_one_by_one(raw: bytes) -> None:
    ours, theirs = byte_level(0), byte_level(0, order=2)
    letters = {b: x for x, b in BYTE_LETTERS.items()}
    found = aligner(ours, theirs).align(ours.convert_tokens_to_ids([letters[b] for b in raw]))
    assert spelled(theirs, found.ids) == raw
    assert found.spans == tuple((t, t + 1) for t in range(len(raw)))


def test_a_response_is_read_up_to_what_the_teacher_can_not_spell() -> None:
    """Its tokenizer lacks the byte FF, which stands alone between "a" and "b"."""
    ours, theirs = byte_level(0), byte_level(0)
    state = json.loads(theirs.backend_tokenizer.to_str())
    letters = {b: x for x, b in BYTE_LETTERS.items()}
    del state["model"]["vocab"][letters[0xFF]]
    ids = ours.convert_tokens_to_ids(["a", "<think>", letters[0xFF], "b", "<|im_end|>"])
    found = aligner(ours, wrap(Tokenizer.from_str(json.dumps(state)))).align(ids)
    assert found.spans == ((0, 1), (1, 2), None, None, None)
    assert len(found.ids) == 2


# -- scores -----------------------------------------------------------------------------------------------------------


def test_scores_of_a_run_add_up_and_the_rest_is_nan() -> None:
    """ " sum" over four single bytes: -(1 + 2 + 3 + 4); <think> is seven more bytes; the end token is the twelfth."""
    ours, theirs = with_byte_fallback(), byte_level(0, ["<|im_end|>"])
    teacher = AlignedTeacher(inner := Counting(), aligner(ours, theirs))
    ids = tuple(ours.convert_tokens_to_ids(["▁sum", "<think>", "<|im_end|>"]))
    (got,) = teacher.score([ScoreRequest((7, 8), ids)])
    assert got.logp[0] == -10 and math.isnan(got.logp[1]) and got.logp[2] == -12
    assert got.aligned is not None and got.aligned.tolist() == [True, False, True]
    assert inner.asked[0].prompt_ids == (7, 8) and len(inner.asked[0].response_ids) == 12
    assert aligned_share([got]) == pytest.approx(2 / 3)


def test_candidates_are_asked_about_by_the_one_token_that_spells_them() -> None:
    """Of the candidates "u", "um" and <think>, single bytes know "u" and the special token."""
    ours, theirs = with_byte_fallback(), byte_level(0)
    u, um, think = (int(ours.convert_tokens_to_ids(t)) for t in ("u", "um", "<think>"))
    (got,) = AlignedTeacher(Counting(), aligner(ours, theirs)).score(
        [ScoreRequest((1,), (um, u), ((u, um, think),) * 2)]
    )
    want = -float(theirs.convert_tokens_to_ids("u")), -math.inf, -float(theirs.convert_tokens_to_ids("<think>"))
    assert got.candidate_logp is not None and got.candidate_logp.tolist() == [[*want], [*want]]
    assert got.logp.tolist() == [-3.0, -3.0]


def test_the_teachers_own_favourites_are_refused() -> None:
    with pytest.raises(ConfigError, match="need not be tokens of the student"):
        AlignedTeacher(Counting(), aligner(byte_level(0), byte_level(0))).score([ScoreRequest((1,), (2,), top_k=3)])


def model(tokenizer: Any, like: tuple[Any, Any] | None = None) -> Policy:
    """A tiny text model; `like` another one, with its rows moved to where `tokenizer` has the same tokens."""
    torch.manual_seed(2)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, max_position_embeddings=256, tie_word_embeddings=True,
        initializer_range=0.2, bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    made: Any = Qwen3ForCausalLM(config).eval()
    if like is not None:
        names, other = like
        made.load_state_dict(other.state_dict())
        rows = names.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
        made.get_input_embeddings().weight.data = other.get_input_embeddings().weight.data[rows].clone()
        made.tie_weights()
    return Policy(made, Chat(tokenizer))


def test_a_teacher_whose_ids_are_shuffled_gives_the_scores_of_the_one_that_shares_them() -> None:
    names, shuffled = byte_level(20), byte_level(20, order=5)
    plain = model(names)
    moved = model(shuffled, (names, plain.model))
    text = "so the sum of 3 and 5 is 8, größer"
    response = (*plain.chat.tokens(text), plain.chat.end_id)
    candidates = tuple((i, 40, 300) for i in response)
    prompts = [p.chat.prompt([tiny_message()]).ids for p in (plain, moved)]
    (want,) = InProcessTeacher(plain, temperature=0.7, token_budget=512).score(
        [ScoreRequest(prompts[0], response, candidates)]
    )
    inner = InProcessTeacher(moved, temperature=0.7, token_budget=512)
    (got,) = AlignedTeacher(inner, aligner(names, shuffled)).score([ScoreRequest(prompts[1], response, candidates)])
    assert got.aligned is not None and got.aligned.tolist() == [True] * len(response)
    torch.testing.assert_close(torch.tensor(got.logp), torch.tensor(want.logp), rtol=0, atol=1e-5)
    assert want.candidate_logp is not None and got.candidate_logp is not None
    known = torch.tensor([[math.isfinite(v) for v in row] for row in got.candidate_logp])
    mine, theirs = torch.tensor(got.candidate_logp), torch.tensor(want.candidate_logp)
    torch.testing.assert_close(mine[known], theirs[known], rtol=0, atol=1e-5)
    assert known[:, 0].sum() > len(response) / 2


def tiny_message() -> Any:
    return Message("user", "digits 3 5 . sum ?")


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_tokenizers_that_do_not_spell_the_bytes_of_the_text_are_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(VocabularyMismatch, match="do not stand for the bytes") as caught:
        aligner(byte_level(0), wrap(words))
    assert "decoder none" in str(caught.value) and "teacher.path: test" in str(caught.value)


def test_an_end_token_is_needed_on_both_sides() -> None:
    nameless = PreTrainedTokenizerFast(tokenizer_object=byte_level(0).backend_tokenizer)
    with pytest.raises(VocabularyMismatch, match="names no end token"):
        aligner(byte_level(0), nameless)


def normalizing(made: Any, *by: Any) -> Any:
    """A tokenizer with another normalizer, after the one it has."""
    raw = Tokenizer.from_str(made.backend_tokenizer.to_str())
    raw.normalizer = normalizers.Sequence([*by, *([raw.normalizer] if raw.normalizer is not None else [])])
    return wrap(raw)


DOTS = normalizers.Replace("...", "\u2026")


@pytest.mark.parametrize(
    ("text", "by", "lost"),
    [
        ("café 8", [normalizers.NFC()], []),
        ("cafe\u0301 8", [normalizers.NFC()], [3, 4, 5]),  # a letter and its accent, one byte and two
        ("R = 5 \u2126 .", [normalizers.NFC()], [6, 7, 8]),  # the sign of ohm, which NFC makes an omega
        ("q\u0307\u0323 8", [normalizers.NFC()], [1, 2, 3, 4]),  # two marks that NFC puts in the other order
        ("\uac01 8", [normalizers.NFD()], [0, 1, 2]),
        ("o\ufb01 8", [normalizers.NFKC()], [1, 2, 3]),  # a ligature
        ("So Be it", [normalizers.Lowercase()], [0, 3]),
        ("  so it is ", [normalizers.Strip()], [0, 1, 10]),
        ("a... b ...", [DOTS], [1, 2, 3, 7, 8, 9]),
        ("aé e\u0301.", [normalizers.NFD(), normalizers.StripAccents()], [1, 2, 5, 6]),
        ("E\u0301 x", [normalizers.NFC(), normalizers.Lowercase()], [0, 1, 2]),
    ],
)
def test_a_character_that_a_normalizer_changes_is_lost_alone(text: str, by: list[Any], lost: list[int]) -> None:
    """Student and teacher of single bytes: every byte has its score but those of the character."""
    names = byte_level(0)
    one = aligner(names, normalizing(names, *by))
    ids = names(text, add_special_tokens=False)["input_ids"]
    found = one.align([*ids, names.eos_token_id])
    assert spelled(names, found.ids[:-1]) == text.encode()
    assert [i for i, span in enumerate(found.spans) if span is None] == lost


def test_a_candidate_that_a_normalizer_changes_is_no_token_of_the_teachers() -> None:
    names = byte_level(0)
    one = aligner(names, normalizing(names, normalizers.Lowercase()))
    big, small = (names.convert_tokens_to_ids(x) for x in "Ss")
    assert (one.single(big), one.single(small)) == (None, small)


def test_the_teacher_reads_what_follows_such_a_character_as_it_would_without_it() -> None:
    """ " sum", with the blank, is one token; "sum" inside a word is s and um, for a blank in front it would be ▁sum."""
    theirs = normalizing(with_byte_fallback(), normalizers.NFC())
    cut = Spelling(theirs, where="t").cut
    name = {i: t for t, i in theirs.get_vocab().items()}
    found = cut("sum\u2126sum sum".encode())
    assert found is not None
    assert [name[i] for i, _ in found] == ["▁sum", "<0xE2>", "<0x84>", "<0xA6>", "s", "um", "▁sum"]
    assert b"".join(b for _, b in found) == "sum\u2126sum sum".encode()
    assert [name[i] for i, _ in cut("\u2581sum".encode()) or []] == ["<0xE2>", "<0x96>", "<0x81>", "s", "um"]


NASTY = st.text(
    alphabet=[*"aeq S.1\n", *"\u0301\u0307\u0323\u2126\ufb01\u1100\u1161\u11a8\uac01\u00e9\u2581\u2026ßİ"], max_size=24
)
NORMALIZERS: list[list[Any]] = [
    [normalizers.NFC()],
    [normalizers.NFKC()],
    [normalizers.NFD(), normalizers.StripAccents()],
    [normalizers.Lowercase()],
    [normalizers.Strip()],
    [DOTS],
    [normalizers.Prepend("x")],
]
PAIRS = [
    (ours, theirs)
    for ours in (byte_level(0), byte_level(60))
    for by in NORMALIZERS
    for theirs in (normalizing(byte_level(60), *by), normalizing(with_byte_fallback(), *by))
]


@given(st.sampled_from(PAIRS), NASTY, st.binary(max_size=3))
def test_under_any_normalizer_spans_spell_the_same_bytes(pair: tuple[Any, Any], text: str, stray: bytes) -> None:
    ours, theirs = pair
    one = aligner(ours, theirs)
    ids = ours(text, add_special_tokens=False)["input_ids"]
    ids += [ours.convert_tokens_to_ids(next(x for x, b in BYTE_LETTERS.items() if b == byte)) for byte in stray]
    found = one.align([*ids, ours.eos_token_id])
    whole = one.theirs.cut(spelled(ours, ids))
    assert whole is not None and tuple(i for i, _ in whole) == found.ids[:-1]
    assert b"".join(b for _, b in whole) == text.encode() + stray
    for token, span in zip(ids, found.spans, strict=False):
        if span is not None:
            first, last = span
            assert b"".join(b for _, b in whole[first:last]) == spelled(ours, [token])
    assert found.spans[-1] == (len(whole), len(whole) + 1)
    # the bytes of every token are those that its own tokenizer gives it, but for the blank put in front of all
    for i, (token, raw) in enumerate(whole):
        own = one.theirs.bytes_of(token)
        assert raw == own or (i == 0 and own == b" " + raw)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distill": {"objective": {"method": "gkd"}}}, "can not give"),
        (
            {"distill": {"objective": {"method": "vold", "teacher_loss": {"top_k": {"k": 4, "support": "teacher"}}}}},
            "support: student",
        ),
        ({"environment": {"kind": "python"}}, "same ids and template"),
    ],
)
def test_a_recipe_that_would_need_shared_ids_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    raw = tiny.recipe_dict(tmp_path)
    raw["teacher"]["tokenizer"] = "align"
    raw["distill"] |= change.pop("distill", {})
    if "top_k" in str(raw["distill"]):
        raw["distill"]["objective"]["teacher_loss"]["estimator"] = "reverse_kl"
    with pytest.raises(ConfigError, match=words):
        recipe_from(raw | change, where="test")


# -- whole runs -------------------------------------------------------------------------------------------------------


def test_a_run_with_a_shuffled_teacher_is_the_run_with_the_teacher_that_shares_ids(tmp_path: Path) -> None:
    # Single bytes: an untrained student hardly ever cuts what it writes as a tokenizer with merges would.
    names, shuffled = byte_level(0), byte_level(0, order=5)
    plain = model(names)
    plain.save(tmp_path / "plain")
    model(shuffled, (names, plain.model)).save(tmp_path / "moved")
    torch.manual_seed(9)
    Policy(Qwen3ForCausalLM(plain.model.config), Chat(names)).save(tmp_path / "student")
    rows: dict[str, Any] = {}
    figures: dict[str, Overlap] = {}
    for name, kind in (("plain", "shared"), ("moved", "align")):
        raw = tiny.recipe_dict(tmp_path)
        raw["run"]["dir"] = str(tmp_path / f"run-{name}")
        raw["teacher"] = {"path": str(tmp_path / name), "tokenizer": kind}
        raw["distill"] |= {"steps": 2, "init": str(tmp_path / "student")}
        raw["student"] = {"path": str(tmp_path / "student"), "freeze": []}
        raw["sft"] = None
        recipe = recipe_from(raw, where="test")
        figures[name] = align(recipe)
        distill(recipe)
        rows[name] = read_jsonl(tmp_path / f"run-{name}" / "distill" / "metrics.jsonl")
        with contextlib.suppress(DataError):  # an untrained teacher hardly ever ends an answer
            make_traces(recipe)
        (trace, *_) = read_jsonl(tmp_path / f"run-{name}" / "traces" / "traces.jsonl")
        # Greedy or not, sampling noise goes by id, so traces differ; each is in the student's ids all the same.
        assert names.decode([i for i in trace["response_ids"] if i != names.eos_token_id]) == trace["response"]
    for one, two in zip(rows["plain"], rows["moved"], strict=True):
        assert one["aligned_share"] == two["aligned_share"] == 1.0
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    assert figures["moved"].kl == pytest.approx(figures["plain"].kl, abs=1e-5)
    assert (figures["plain"].aligned_share, figures["moved"].aligned_share) == (1.0, 1.0)
    assert figures["plain"].top1_agreement is not None and figures["moved"].top1_agreement is None


def test_the_verdict_without_a_top_1_agreement_goes_by_the_kl() -> None:
    assert [verdict(kl, None)[0] for kl in (0.5, 2.0, 4.0)] == ["ready", "doubtful", "not aligned"]
    assert "likeliest" not in verdict(0.5, None)[1]


# -- two published tokenizers -----------------------------------------------------------------------------------------


def test_qwen3_and_deepseek_agree_on_words_and_not_on_digits() -> None:
    """Qwen3 cuts numbers into digits, DeepSeek-V3 into groups of up to three; "boxed", "}." and blanks are shared."""
    qwen, deepseek = published.tokenizer("qwen3"), published.tokenizer("deepseek")
    one = aligner(qwen, deepseek)
    ids = qwen("So 12 + 30 = 4. The answer is \\boxed{4}.", add_special_tokens=False)["input_ids"] + [qwen.eos_token_id]
    found = one.align(ids)
    names = [qwen.decode([i]) for i in ids]
    lost = [n for n, s in zip(names, found.spans, strict=True) if s is None]
    assert lost == ["1", "2", "3", "0"]
    for name, span in zip(names[:-1], found.spans[:-1], strict=True):
        if span is not None:
            assert deepseek.decode(list(found.ids[span[0] : span[1]])) == name
    assert deepseek.convert_ids_to_tokens(found.ids[-1]) == deepseek.eos_token


@pytest.mark.parametrize("direction", ["qwen3 by deepseek", "deepseek by qwen3"])
def test_published_tokenizers_spell_any_text(direction: str) -> None:
    ours, theirs = (published.tokenizer(name) for name in direction.split(" by "))
    one = aligner(ours, theirs)
    for text in ("def f(x):\n\treturn x ** 2  # größer\n", "∑ᵢ xᵢ² ≤ 1 — «да» 日本語 😀", "a\u00a0b\r\n\r\n  c"):
        ids = ours(text, add_special_tokens=False)["input_ids"]
        found = one.align(ids)
        assert spelled(theirs, found.ids) == text.encode()
        for i, span in zip(ids, found.spans, strict=True):
            if span is not None:
                assert spelled(theirs, found.ids[span[0] : span[1]]) == spelled(ours, [i])


def test_what_only_the_teacher_has_a_token_for_is_read_as_that_token() -> None:
    """A student of Qwen2.5 writes `<think>` in pieces. Qwen3 reads its token, and the pieces are not scored."""
    qwen3 = published.tokenizer("qwen3")
    raw = json.loads(qwen3.backend_tokenizer.to_str())
    raw["added_tokens"] = [t for t in raw["added_tokens"] if t["id"] < 151665]
    student = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(raw)), eos_token="<|im_end|>")
    ids = student("<think>\nok</think>", add_special_tokens=False)["input_ids"]
    pieces = student.convert_ids_to_tokens(ids)
    assert pieces == ["<th", "ink", ">Ċ", "ok", "</", "think", ">"]
    found = aligner(student, qwen3).align(ids)
    assert qwen3.convert_ids_to_tokens(list(found.ids)) == ["<think>", "Ċ", "ok", "</think>"]
    assert found.spans == (None, None, None, (2, 3), None, None, None)
