"""Where the answers of a run lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from vold.run.answers import model_folders


@pytest.mark.parametrize(
    ("files", "models"),
    [
        (["base/image.protocol.json", "base/image.jsonl", "base/text.protocol.json"], ["base"]),
        (["base/image.protocol.json", "Qwen/VL/image.protocol.json"], ["Qwen/VL", "base"]),
        # a judge's replies, VLMEvalKit's files, servers' logs
        (["base/image.protocol.json", "judge/ab.jsonl", "vlmevalkit/base/base_X.csv", "servers/a.log"], ["base"]),
        (["results.json"], []),
        ([], []),
    ],
)
def test_models_are_folders_of_answers_alone(files: list[str], models: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / "eval" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "eval" / name).touch()
    assert model_folders(tmp_path) == {name: tmp_path / "eval" / name for name in models}
