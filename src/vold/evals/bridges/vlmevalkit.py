"""Prediction files of VLMEvalKit: ours for it to mark, its own for us to mark.

Formats go by the suffix: `.tsv`, `.json` (records) and `.xlsx`. Its default is xlsx, which cuts a cell at 32,767
characters and with it the answer at the end of a long chain of thought: set `PRED_FORMAT=tsv` when it predicts.
"""

from __future__ import annotations

import csv
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vold.data.files.read import read_rows
from vold.errors import DataError
from vold.evals.marking.as_vlmevalkit import as_vlmevalkit
from vold.evals.marking.llm_judge import score_vlmevalkit
from vold.evals.marking.rules import score
from vold.graders import outcome
from vold.graders.choice import LETTERS
from vold.run.answers import Answer
from vold.run.files import write_bytes, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from vold.data.benchmarks.item import Item
    from vold.evals.marking.llm_judge import Judge
    from vold.types import Finish

XLSX_CELL = 32_767
"""Characters, in UTF-16, that a cell of a spreadsheet holds."""

ID_COLUMNS = ("id", "ID", "pid", "unique_id", "sample_index", "question_id", "index")
"""Columns that may name an item, the surest first."""

Cell = str | int


@dataclass(frozen=True)
class Prediction:
    """An answer of another harness, of so many `tokens` (0: not known). `cut`: its file has lost the end of it."""

    id: str
    response: str
    cut: bool = False
    tokens: int = 0


def write_vlmevalkit(
    rows: Sequence[Mapping[str, Any]],
    items: Sequence[Item],
    file: Path,
    *,
    table: Path | None = None,
    sample: int = 0,
) -> int:
    """Write stored answers as a prediction file and return how many there are.

    Columns: `index`, `id`, `question`, `A`, `B`, ..., `answer`, the items' tags, `prediction`. VLMEvalKit finds an item
    by its own `index` and marks by columns of its own: for it to mark the file, give as `table` the TSV that it has of
    the benchmark. Then the columns and the order are that table's, pictures left out.

    Args:
        rows: as in `eval/MODEL/SET.jsonl`.
        items: the benchmark as read.
        file: the prediction file; an older one is replaced.
        table: VLMEvalKit's TSV of the benchmark.
        sample: which of several answers to an item.

    Raises:
        DataError: no such answers, a table of other items, or a text that a spreadsheet cannot hold.
    """
    responses = {r["id"]: r["response"] for r in rows if r.get("sample", 0) == sample}
    if not responses:
        raise DataError("there are no answers to write", where=str(file), got=f"sample {sample} of {len(rows)} rows")
    ours = _table_of_items(items) if table is None else _table_of_file(items, table)
    records = [{**cells, "prediction": _text(responses[i])} for i, cells in ours if i in responses]
    _write(file, records)
    return len(records)


def read_vlmevalkit(file: Path, items: Sequence[Item]) -> list[Prediction]:
    """The answers of a prediction file that VLMEvalKit, or `write_vlmevalkit`, has written.

    A column is taken for the items' ids if its values are different and nearly all of them are ids of `items`. Rows of
    other items are passed over.

    Raises:
        DataError: not a prediction file, no column of ids, or questions that are not those of `items`.
    """
    records = list(_read(file))
    if not records or "prediction" not in records[0]:
        raise DataError(
            "this is no prediction file", where=str(file), got=", ".join(map(str, records[0])) if records else "no rows"
        )
    found = [(i, records[n]["prediction"]) for i, n in _match(records, items, where=str(file))]
    return [Prediction(i, text, file.suffix == ".xlsx" and _width(text) >= XLSX_CELL) for i, text in found]


def mark(predictions: Iterable[Prediction], items: Sequence[Item], *, judge: Judge | None = None) -> list[Answer]:
    """Mark answers by the `rule` protocol, or with a judge by `vlmevalkit`; returns rows for
    `vold.evals.metrics.summarise`.

    An answer whose end was lost is truncated, not wrong.

    Raises:
        SamplerError: the judge fails; what it has said so far is kept.
    """
    known = {item.id: item for item in items}
    asked = 1 if judge is None else judge.endpoint.workers()
    with ThreadPoolExecutor(asked) as threads:
        return list(threads.map(lambda p: _marked(p, known[p.id], judge), predictions))


def _marked(prediction: Prediction, item: Item, judge: Judge | None) -> Answer:
    finish: Finish = "length" if prediction.cut else "stop"
    text, theirs, by_rule = prediction.response, None, None
    grade = score(item, text, finish=finish)
    if judge is not None:
        by_rule = outcome(grade, finish)
        grade = score_vlmevalkit(item, text, judge, finish=finish)
        theirs = as_vlmevalkit(item, text, grade, judge.said)
    return Answer(
        id=prediction.id,
        response=text,
        extracted=grade.extracted,
        reference=item.answer,
        score=grade.score,
        note=grade.note,
        outcome=outcome(grade, finish),
        tokens=prediction.tokens,
        cluster=item.cluster,
        tags=item.tags,
        by_rule=by_rule,
        as_vlmevalkit=theirs,
    )


def _table_of_items(items: Sequence[Item]) -> Iterator[tuple[str, dict[str, Cell]]]:
    letters = LETTERS[: max((len(i.options) for i in items), default=0)]
    tags = sorted({tag for item in items for tag in item.tags} - {"index", "id", "question", "answer", "prediction"})
    for number, item in enumerate(items, 1):
        options = dict(zip(letters, item.options, strict=False))
        cells: dict[str, Cell] = {"index": number, "id": item.id, "question": _text(item.question)}
        cells |= {letter: _text(options.get(letter, "")) for letter in letters}
        cells["answer"] = _text(item.answer)
        yield item.id, cells | {tag: _text(item.tags.get(tag, "")) for tag in tags}


def _table_of_file(items: Sequence[Item], table: Path) -> list[tuple[str, dict[str, Cell]]]:
    records = [{k: _text(v) for k, v in row.values.items()} for row in read_rows(table)]
    left_out = ("image", "prediction")
    return [
        (i, {k: int(v) if k == "index" and v.isdecimal() else v for k, v in records[n].items() if k not in left_out})
        for i, n in _match(records, items, where=str(table))
    ]


def _match(records: Sequence[Mapping[str, str]], items: Sequence[Item], *, where: str) -> list[tuple[str, int]]:
    """Item id and number of every record that is of one of `items`, in the order of the records."""
    known = {item.id: item for item in items}
    column = ""
    for name in ID_COLUMNS:
        values = {r.get(name, "") for r in records}
        # Either may be a part of the benchmark, and hold a few rows that the other has left out.
        if len(values) == len(records) and len(values & set(known)) >= 0.9 * min(len(values), len(known)) > 0:
            column = name
            break
    if not column:
        raise DataError(
            "no column of this file holds the items' ids",
            where=where,
            got=f"items such as {min(known, default='none')!r}; columns {', '.join(records[0]) if records else 'none'}",
            fix="give the same benchmark, split and data that it was made with",
        )
    pairs = [(known[r[column]], r) for r in records if r[column] in known and r.get("question")]
    other = [item.id for item, r in pairs if item.question and _plain(item.question) != _plain(r["question"])]
    # A few may be spelt in another way; more, and the ids only happen to be the same numbers.
    if len(other) > len(pairs) // 10:
        raise DataError(
            "this file has other questions under the same ids",
            where=f"{where}: column {column!r}",
            got=f"{len(other)} of {len(pairs)}, such as {other[0]!r}",
            fix="give the same benchmark, split and data that it was made with",
        )
    return [(r[column], n) for n, r in enumerate(records) if r[column] in known]


def _plain(text: str) -> str:
    return re.sub(r"<\s*image[\s_]*\d*\s*>|\W+", "", text).casefold()


def _text(value: Any) -> str:
    """A cell as text. NUL and halves of a surrogate pair, which no reader takes, become the replacement character."""
    if value is None or value != value:  # NaN: an empty cell of pandas
        return ""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return re.sub(r"[\x00\ud800-\udfff]", "\ufffd", text)


def _width(text: str) -> int:
    return len(text.encode("utf-16-le", "replace")) // 2


def _write(file: Path, records: Sequence[Mapping[str, Cell]]) -> None:
    if file.suffix == ".json":
        write_text(file, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    elif file.suffix == ".tsv":
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(records[0])
        writer.writerows(r.values() for r in records)
        write_bytes(file, buffer.getvalue().encode())
    elif file.suffix == ".xlsx":
        write_bytes(file, _spreadsheet(file, records))
    else:
        raise _unknown(file)


def _spreadsheet(file: Path, records: Sequence[Mapping[str, Cell]]) -> bytes:
    """Every text stays text: nothing becomes a formula, a link, a number or a date. Line ends become "\\n"."""
    from openpyxl import Workbook  # type: ignore[import-untyped, unused-ignore]
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # type: ignore[import-untyped, unused-ignore]

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for y, record in enumerate([{name: name for name in records[0]}, *records], 1):
        for x, (column, value) in enumerate(record.items(), 1):
            cell = sheet.cell(y, x)
            if isinstance(value, int):
                cell.value = value
                continue
            text = value.replace("\r\n", "\n").replace("\r", "\n")
            if _width(text) > XLSX_CELL or ILLEGAL_CHARACTERS_RE.search(text):
                long = f"{_width(text):,} characters, over {XLSX_CELL:,}"
                raise DataError(
                    "a spreadsheet cannot hold this text; its end, the answer, would be lost",
                    where=f"{file}: row {y}, column {column!r}",
                    got=long if _width(text) > XLSX_CELL else "a control character",
                    fix="write .tsv, and let VLMEvalKit use it too: PRED_FORMAT=tsv",
                )
            if text:
                cell.value = text
                cell.data_type = "s"
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def _read(file: Path) -> Iterator[dict[str, str]]:
    if not file.exists():
        raise DataError("there is no such file", where=str(file))
    try:
        if file.suffix == ".xlsx":
            yield from _spreadsheet_rows(file)
        elif file.suffix == ".tsv":
            yield from _tsv_rows(file)
        elif file.suffix == ".json":
            yield from ({k: _text(v) for k, v in row.values.items()} for row in read_rows(file))
        else:
            raise _unknown(file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("cannot read this prediction file", where=str(file), got=str(error)[:200]) from None


def _tsv_rows(file: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(1 << 30)
    # Decoded by hand: reading as text would turn every "\r" of an answer into a line end.
    for row in csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8"), newline=""), delimiter="\t"):
        if None in row or None in row.values():
            raise DataError("a row has another number of cells than the header", where=str(file), got=str(row)[:100])
        yield {k: _text(v) for k, v in row.items()}


def _spreadsheet_rows(file: Path) -> Iterator[dict[str, str]]:
    import zipfile

    from openpyxl import load_workbook  # type: ignore[import-untyped, unused-ignore]
    from openpyxl.utils.exceptions import InvalidFileException  # type: ignore[import-untyped, unused-ignore]

    try:
        book = load_workbook(file, read_only=True)
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise DataError("this spreadsheet is corrupt or cut short", where=str(file), got=str(error)[:200]) from None
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        names = [_text(v) for v in next(rows, ())]
        for row in rows:
            cells = [_text(v) for v in row]
            if any(cells):
                yield dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=False))
    finally:
        book.close()


def _unknown(file: Path) -> DataError:
    return DataError("unknown format of a prediction file", where=str(file), fix="use .tsv, .json or .xlsx")
