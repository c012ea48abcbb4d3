"""The bridges from the command line: `python -m vold.evals.bridges.cli VERB ...`; see docs/bridges.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vold.data.benchmarks.registry import load
from vold.errors import VoldError
from vold.evals.bridges.lmms import read_lmms_samples, write_lmms_task
from vold.evals.bridges.vlmevalkit import mark, read_vlmevalkit, write_vlmevalkit
from vold.evals.marking.golds import handle_golds
from vold.evals.metrics import summarise
from vold.run.files import read_jsonl
from vold.run.records import to_json
from vold.types import SamplingParams

if TYPE_CHECKING:
    from vold.data.benchmarks.item import Item


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit status 0: done; 2: the user can mend it."""
    args = _parser().parse_args(argv)
    try:
        loaded = load(args.benchmark, path=args.data, split=args.split)
        items, _ = handle_golds(loaded.items)
        if args.verb == "export":
            count = write_vlmevalkit(
                read_jsonl(args.answers, whole=True), items, args.file, table=args.table, sample=args.sample
            )
            print(f"wrote {count} answers to {args.file}")
        elif args.verb == "mark":
            print(json.dumps(_marked(args.file, items, args.benchmark), indent=2))
        else:
            params = SamplingParams(args.max_new_tokens, args.temperature)
            print(f"wrote {write_lmms_task(items, args.protocol, params, args.folder)}")
    except VoldError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _marked(file: Path, items: list[Item], benchmark: str) -> dict[str, object]:
    read = read_lmms_samples if file.suffix == ".jsonl" else read_vlmevalkit
    found = read(file, items)
    figures = summarise(mark(found, items), benchmark=benchmark)
    out: dict[str, object] = to_json(figures)
    out |= {"not_answered": len(items) - len(found), "mean_tokens": figures.mean_tokens or None}
    del out["by_kind"]
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vold.evals.bridges.cli", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--benchmark", required=True, help="name of the benchmark, as in a recipe")
    common.add_argument("--data", help="its file or folder; the hub if absent")
    common.add_argument("--split", help="its usual split if absent")
    export = verbs.add_parser("export", parents=[common], help="stored answers to a prediction file of VLMEvalKit")
    export.add_argument("answers", type=Path, help="RUN/eval/MODEL/SET.jsonl")
    export.add_argument("file", type=Path, help="the file to write: .tsv, .json or .xlsx")
    export.add_argument("--table", type=Path, help="VLMEvalKit's TSV of the benchmark, so that it can mark the file")
    export.add_argument("--sample", type=int, default=0, help="which of several answers to an item")
    marked = verbs.add_parser("mark", parents=[common], help="mark the answers that another harness got")
    marked.add_argument("file", type=Path, help="a prediction file of VLMEvalKit, or lmms-eval's *_samples_*.jsonl")
    task = verbs.add_parser("lmms", parents=[common], help="a benchmark as a task of lmms-eval")
    task.add_argument("folder", type=Path, help="where the task's files go")
    task.add_argument("--protocol", choices=("rule", "vlmevalkit"), default="rule", help="how it asks")
    task.add_argument("--max-new-tokens", type=int, default=8192)
    task.add_argument("--temperature", type=float, default=0.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
