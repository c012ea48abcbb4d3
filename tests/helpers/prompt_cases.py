"""An item of every benchmark, and the protocols that ask it: their prompts lie in tests/evals/prompts_expected."""

from __future__ import annotations

from PIL import Image

from vold.data.benchmarks.item import Form, Item

RED, GREEN, BLUE = (Image.new("RGB", (4, 4), c) for c in ("red", "green", "blue"))

HINT = (
    "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the"
    " end.\nQuestion: How many?\n(Unit: cm)"
)
COT = (
    "According to the question shown in the image, please first conduct reasoning, and then answer the question and"
    " provide the correct option letter, e.g., A, B, C, D, at the end."
)


def item(
    benchmark: str, question: str = "", *options: str, images: int = 1, form: Form = "choice", query: str | None = None
) -> Item:
    pictures = (RED, GREEN, BLUE)[:images]
    return Item(benchmark, "7", question, options, pictures, "A", form, cluster="7", query=query)


MARKED = ("Given <image 2>, which graph follows?", "<image 3>", "<image 1>", "none of <image 2>")
STAR = ("Which option?", "The cat", "The dog, or C: both", "Neither.")
CASES: dict[str, tuple[Item, str]] = {
    "mmmu_pro_standard10": (item("mmmu_pro_standard10", *MARKED, images=3), "rule vlmevalkit"),
    "mmmu_pro_standard4": (
        item("mmmu_pro_standard4", "Which {options} fit <image 1> at 100%?", "50 %", "{question}"),
        "rule",
    ),
    "mmmu_pro_vision": (item("mmmu_pro_vision", "", "left", "right"), "rule vlmevalkit"),
    "mathvision": (item("mathvision", "What is the area in <image 1>?", *"12345"), "rule vlmevalkit"),
    "mathvision_open": (item("mathvision", "Compare <image 1> and <image 2>.", form="math"), "rule vlmevalkit"),
    "mathvista": (item("mathvista", "How many?", form="integer", query=HINT), "rule vlmevalkit"),
    "mathvista_bare": (item("mathvista", "Which?", "red", "blue"), "rule vlmevalkit"),
    "logicvista": (item("logicvista", "Which two?", form="letters"), "rule vlmevalkit"),
    "mmmu": (item("mmmu", "Look at <image 1>.", "left", "right"), "rule vlmevalkit"),
    "mmmu_open": (item("mmmu", "Name it.", form="text"), "rule vlmevalkit"),
    "mathverse": (item("mathverse", "Find the angle.", query=COT), "rule vlmevalkit"),
    "mathverse_vision_only": (item("mathverse_vision_only", query=COT), "vlmevalkit"),
    "wemath": (item("wemath", "What is it?", "1 cm", "No correct answer"), "rule vlmevalkit"),
    "dynamath_choice": (item("dynamath", "Find x."), "rule vlmevalkit"),
    "dynamath_float": (item("dynamath", "Find x.", form="float"), "rule vlmevalkit"),
    "dynamath_text": (item("dynamath", "Find x.", form="text"), "rule vlmevalkit"),
    "mmstar": (item("mmstar", *STAR), "rule vlmevalkit"),
    "mme": (item("mme", "Is it a cat? Please answer yes or no.", "Yes", "No"), "rule vlmevalkit"),
    "hallusionbench": (item("hallusionbench", "Is the left line longer?", "Yes", "No"), "rule vlmevalkit"),
    "geometry3k": (item("geometry3k", "Find $x$.", form="math"), "rule"),
    "emma_mini": (item("emma_mini", "Which follows <image 1>?", "<image 2>", "none", images=2), "rule vlmevalkit"),
    "emma_mini_open": (item("emma_mini", "How many in <image 1>?", form="text"), "rule vlmevalkit"),
    "visulogic": (item("visulogic", "Which comes next?"), "rule vlmevalkit"),
    "olympiadbench_mm_maths": (
        item("olympiadbench_mm_maths", "Find C.", form="math", query="Asked as the row says.\nFind C in <image 1>."),
        "rule vlmevalkit",
    ),
    "math500": (item("math500", "What is 1+1?", images=0, form="math"), "rule"),
    "gsm8k": (item("gsm8k", "What is 1+1?", images=0, form="integer"), "rule"),
    "aime2024": (item("aime2024", "What is 1+1?", images=0, form="integer"), "rule"),
    "aime2025": (item("aime2025", "What is 1+1?", images=0, form="integer"), "rule"),
}
