"""The benchmarks' repositories on the hub in their published file names, small: what is read, and what lies beside it.

A listing says where its names were seen: in the data set's own card, in code that downloads the very file, or in code
that reads a downloaded copy. `unconfirmed` marks names of which only the pattern was seen, or none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import layouts
from layouts import Rows


@dataclass(frozen=True)
class Listing:
    """A repository: `files` are those of each split of each benchmark (by both names), `beside` are read by nobody."""

    repo: str
    files: dict[tuple[str, str], dict[str, Rows | bytes]]
    seen: str
    beside: dict[str, Rows | bytes] = field(default_factory=dict)
    unconfirmed: bool = False


def write(listing: Listing, root: Path) -> Path:
    """Write the repository below `root`; returns its folder."""
    folder = root / listing.repo
    for files in (*listing.files.values(), listing.beside):
        for name, content in files.items():
            _write(folder / name, content)
    return folder


def _write(file: Path, content: Rows | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif file.suffix == ".parquet":
        layouts.parquet(file, content)
    elif file.suffix == ".tsv":
        layouts.mmstar_tsv(file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(r) + "\n" for r in content), encoding="utf-8")
    else:
        file.write_text(json.dumps(content), encoding="utf-8")


def _halves(stem: str, rows: Rows) -> dict[str, Rows | bytes]:
    return {f"{stem}-00000-of-00002.parquet": rows[:2], f"{stem}-00001-of-00002.parquet": rows[2:]}


def dynamath(form: str) -> Listing:
    """DynaMath, its ten splits named in one of two forms."""
    files: dict[str, Rows | bytes] = {
        f"data/{form}{n}-00000-of-00001.parquet": layouts.dynamath(n) for n in range(1, 11)
    }
    return Listing(
        "DynaMath/DynaMath_Sample",
        {("dynamath", "sample_variant"): files},
        # Splits sample_variant1 to 10 in callers of load_dataset; data/sampleN-*.parquet in a reader of a copy.
        seen="split names in code; file names of the second form in a reader of a copy",
        unconfirmed=form == "sample_variant",
    )


_OTHER: Rows = [{"question": "of no benchmark", "answer": "no"}]
_TEXT = layouts.written()
_PRO_4 = [row | {"explanation": "of four"} for row in layouts.mmmu_pro(4)]  # or both configs would share a blob
_VERSE = layouts.mathverse()
LISTINGS = (
    Listing(
        "AI4Math/MathVerse",
        {(name, "testmini"): {"testmini.parquet": _VERSE} for name in ("mathverse", "mathverse_vision_only")},
        beside={
            "testmini_text_only.parquet": [r | {"problem_version": "Text Only"} for r in _VERSE[::5]],
            "testmini.json": [{"sample_index": "0"}],
            "images.zip": b"PK",
            "README.md": b"MathVerse",
        },
        seen="configs of the data set's card",
    ),
    Listing(
        "Lin-Chen/MMStar",
        {("mmstar", "val"): {"mmstar.parquet": layouts.mmstar()}},
        beside={"MMStar.tsv": layouts.mmstar(), "README.md": b"MMStar", ".gitattributes": b""},
        seen="code that downloads either file",
    ),
    Listing(
        "Maxwell-Jia/AIME_2024",
        {("aime2024", "train"): {"aime_2024_problems.parquet": _TEXT["aime2024"]}},
        beside={"README.md": b"AIME"},
        seen="code that downloads the file at commit 8d88b287",
    ),
    Listing(
        "math-ai/aime25",
        {("aime2025", "test"): {"test.jsonl": _TEXT["aime2025"]}},
        seen="code that downloads the file at commit 563bb840",
    ),
    dynamath("sample_variant"),
    Listing(
        "openai/gsm8k",
        {("gsm8k", "test"): {"main/test-00000-of-00001.parquet": _TEXT["gsm8k"]}},
        beside={
            "main/train-00000-of-00001.parquet": _TEXT["gsm8k"],
            "socratic/test-00000-of-00001.parquet": _TEXT["gsm8k"],
            "socratic/train-00000-of-00001.parquet": _TEXT["gsm8k"],
        },
        seen="code that downloads main/test-00000-of-00001.parquet",
    ),
    Listing(
        "HuggingFaceH4/MATH-500",
        {("math500", "test"): {"test.jsonl": _TEXT["math500"]}},
        seen="code that downloads the file",
    ),
    Listing(
        "lscpku/LogicVista",
        {("logicvista", "test"): {"data/test-00000-of-00001.parquet": layouts.logicvista_rows()}},
        seen="split `test` in callers of load_dataset; no file name",
        unconfirmed=True,
    ),
    Listing(
        "MathLLMs/MathVision",
        {
            ("mathvision", "test"): {"data/test-00000-of-00001-3532b8d3f1b4047a.parquet": layouts.mathvision()},
            ("mathvision", "testmini"): {
                "data/testmini-00000-of-00001-f8ff70fcb2f29b1d.parquet": layouts.mathvision()[:4]
            },
        },
        beside={"images.zip": b"PK"},
        seen="code that downloads both files",
    ),
    Listing(
        "AI4Math/MathVista",
        {("mathvista", "testmini"): {"data/testmini-00000-of-00001-725687bf7a18d64b.parquet": layouts.mathvista()}},
        beside={
            "data/test-00000-of-00002-6b81bd7f7e2065e6.parquet": layouts.mathvista(),
            "data/test-00001-of-00002-6a611c71596db30f.parquet": layouts.mathvista(),
            "annot_testmini.json": _OTHER,
            "images.zip": b"PK",
        },
        seen="readers of a copy (testmini); the hashes of `test` are made up",
    ),
    Listing(
        "lmms-lab/MMMU",
        {
            ("mmmu", "validation"): {"data/validation-00000-of-00001.parquet": layouts.mmmu()},
            ("mmmu", "dev"): {"data/dev-00000-of-00001.parquet": layouts.mmmu()[:2]},
        },
        beside={f"data/test-0000{n}-of-00002.parquet": layouts.mmmu() for n in range(2)},
        seen="code that downloads validation and dev",
    ),
    Listing(
        "MMMU/MMMU_Pro",
        {
            ("mmmu_pro_standard10", "test"): _halves("standard (10 options)/test", layouts.mmmu_pro(12)),
            ("mmmu_pro_standard4", "test"): _halves("standard (4 options)/test", _PRO_4),
            ("mmmu_pro_vision", "test"): _halves("vision/test", layouts.mmmu_pro_vision()),
        },
        beside={"README.md": b"MMMU-Pro"},
        seen="configs of the data set's card; readers of copies of both standard configs",
    ),
    Listing(
        "lmms-lab/MME",
        {
            ("mme", "test"): {
                "data/test-00000-of-00002-a25dbe3b44c4fda6.parquet": layouts.mme()[:9],
                "data/test-00001-of-00002-7d22c7f1aba6fca4.parquet": layouts.mme()[9:],
            }
        },
        seen="readers of copies, of four files with hashes and of two without",
    ),
    Listing(
        "lmms-lab/HallusionBench",
        {("hallusionbench", "image"): {"data/image-00000-of-00001.parquet": layouts.hallusionbench()}},
        beside={
            "data/non_image-00000-of-00001.parquet": [row | {"image": None} for row in layouts.hallusionbench()],
        },
        seen="code that downloads both files",
    ),
    Listing(
        "hiyouga/geometry3k",
        {
            ("geometry3k", "test"): {"data/test-00000-of-00001.parquet": layouts.geometry3k()},
            ("geometry3k", "validation"): {"data/validation-00000-of-00001.parquet": layouts.geometry3k()[:2]},
        },
        beside={"data/train-00000-of-00001.parquet": layouts.geometry3k()},
        seen="code that downloads train; readers of copies of validation",
    ),
    Listing(
        "luckychao/EMMA-mini",
        {("emma_mini", "test"): {f"{row['subject']}/test-00000-of-00001.parquet": [row] for row in layouts.emma()}},
        seen="a reader of a copy at commit 6b9ae9a7",
    ),
    Listing(
        "VisuLogic/VisuLogic",
        {("visulogic", "test"): {"data.jsonl": layouts.visulogic(), "images.zip": layouts.visulogic_pictures()}},
        seen="readers of copies of either file",
    ),
    Listing(
        "Hothan/OlympiadBench",
        {
            ("olympiadbench_mm_maths", "train"): {
                "OlympiadBench/OE_MM_maths_en_COMP/OE_MM_maths_en_COMP.parquet": layouts.olympiadbench()
            }
        },
        beside={
            f"OlympiadBench/{part}/{part}.parquet": layouts.olympiadbench()
            for part in ("OE_MM_maths_zh_CEE", "OE_MM_physics_en_COMP", "OE_TO_maths_en_COMP", "TP_MM_maths_en_COMP")
        },
        seen="configs of the data set's card",
    ),
    Listing(
        "We-Math/We-Math",
        {("wemath", "testmini"): {"data/testmini-00000-of-00001.parquet": layouts.wemath()}},
        beside={"testmini.zip": b"PK"},
        seen="readers of a copy",
    ),
)
