"""Papers whose tables hold figures of several benchmarks."""

from __future__ import annotations

from vold.data.benchmarks.benchmark import DECODING, DataSource

_VOLD = "VOLD, arXiv 2510.23497 v3"
VOLD_TABLE_1 = DataSource(
    f"{_VOLD}, Table 1",
    "vlmevalkit",
    "vLLM and VLMEvalKit, answers extracted by GPT-4o-mini; decoding not given",
)
VOLD_ABLATIONS = DataSource(f"{_VOLD}, ablations", "vlmevalkit", "protocol as in its Table 1")
VOLD_TABLE_6 = DataSource(f"{_VOLD}, Table 6", "vlmevalkit", "protocol as in its Table 1")
VOLD_SUPPLEMENT = DataSource(f"{_VOLD}, supplement", "vlmevalkit", "protocol as in its Table 1")
OPEN_COMPASS = DataSource(
    "InternVL3, arXiv 2504.10479 (OpenCompass)",
    "vlmevalkit",
    "OpenCompass leaderboard, VLMEvalKit's defaults",
    DECODING["vlmevalkit"][0],
)
QWEN2_5_VL = DataSource("Qwen2.5-VL, arXiv 2502.13923, Table 3", "vendor", "the vendor's own prompts and scoring")
LEAK = "trained partly on this benchmark's sources, as the paper marks it"
