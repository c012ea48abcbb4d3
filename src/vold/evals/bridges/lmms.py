"""An lmms-eval task over a benchmark's questions, and the answers that lmms-eval has logged, for us to mark.

lmms-eval 0.7.3 needs an environment of its own: it pins other versions of what we need.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.data.files.images import png_bytes
from vold.errors import DataError
from vold.evals.bridges.vlmevalkit import Prediction
from vold.evals.prompting import build_messages
from vold.run.files import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vold.data.benchmarks.item import Item, ProtocolName
    from vold.types import SamplingParams

TEMPLATES = Path(__file__).parent.parent / "lmms"
FAILED = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")
"""What lmms-eval logs as the answer where it got none."""


def write_lmms_task(items: Sequence[Item], protocol: ProtocolName, params: SamplingParams, folder: Path) -> Path:
    """Write `questions.parquet`, `utils.py` and `vold_local.yaml` to a folder; returns the YAML file.

    The questions are the protocol's messages with their pictures as PNG: lmms-eval asks what `vold eval` asks.
    `lmms-eval eval --include_path FOLDER --tasks vold_local` finds the task.

    Raises:
        ConfigError: the protocol has no prompt for the benchmark.
        DataError: no items.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    if not items:
        raise DataError("there are no questions to write", where=str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("id", pa.string()), ("prompt", pa.string()), ("answer", pa.string()), ("images", pa.list_(picture))]
    file = folder / "questions.parquet"
    with pq.ParquetWriter(file, pa.schema(columns)) as writer:
        for start in range(0, len(items), 64):  # pictures of a whole benchmark need not fit into memory twice
            rows = [_question(item, protocol) for item in items[start : start + 64]]
            writer.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)))
    values = {
        "QUESTIONS": json.dumps(str(file.resolve())),
        "MAX_NEW_TOKENS": str(params.max_new_tokens),
        "TEMPERATURE": str(params.temperature),
        "DO_SAMPLE": "true" if params.temperature > 0 else "false",
    }
    text = (TEMPLATES / "vold_local.yaml").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f": {name}\n", f": {value}\n")
    write_text(folder / "utils.py", (TEMPLATES / "utils.py").read_text(encoding="utf-8"))
    write_text(folder / "vold_local.yaml", text)
    return folder / "vold_local.yaml"


def read_lmms_samples(file: Path, items: Sequence[Item]) -> list[Prediction]:
    """The answers in a `*_samples_vold_local.jsonl` that lmms-eval wrote with `--log_samples`.

    The log does not say which answers the token budget cut off: they count as unparsed or wrong.

    Raises:
        DataError: not such a file, an id that `items` lacks, or questions that got no answer.
    """
    known = {item.id for item in items}
    found: list[Prediction] = []
    failed = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("cannot read this log", where=str(file), got=str(error)) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}: line {number}"
        try:
            sample = json.loads(line)
            identity, response = str(sample["target"]), _first(sample.get("resps", sample.get("filtered_resps")))
            tokens = sum(int(c["output_tokens"]) for c in sample.get("token_counts", []))
        except (ValueError, KeyError, TypeError):
            raise DataError("this is no sample of the task vold_local", where=where, got=line[:100]) from None
        if identity not in known:
            raise DataError("this question is not in the benchmark", where=where, got=repr(identity))
        failed += [identity] if response.startswith(FAILED) else []
        found.append(Prediction(identity, response, tokens=tokens))
    if failed:
        raise DataError(
            "lmms-eval got no answer to some questions and logged its own words as theirs",
            where=str(file),
            got=f"{len(failed)} of {len(found)}, such as {failed[0]!r}",
            fix="run it again, with a longer timeout= in --model_args",
        )
    return found


def _question(item: Item, protocol: ProtocolName) -> dict[str, Any]:
    (message,) = build_messages(item, protocol)
    pictures = [{"bytes": png_bytes(image), "path": None} for image in message.images]
    return {"id": item.id, "prompt": message.text, "answer": item.answer, "images": pictures}


def _first(value: Any) -> str:
    """The text within lists of one: lmms-eval flattens some of them and not others."""
    while isinstance(value, list):
        value = value[0] if value else ""
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value
