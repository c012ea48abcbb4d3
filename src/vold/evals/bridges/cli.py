"""The bridges from the command line: `python -m vold.evals.bridges.cli VERB ...`; see docs/bridges.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vold.data.benchmarks.item import ProtocolName
from vold.data.benchmarks.registry import get_benchmark, load
from vold.engines.chat_api import EndpointSampler
from vold.errors import ConfigError, DataError, VoldError
from vold.evals.bridges.lmms import read_lmms_samples, write_lmms_task
from vold.evals.bridges.vlmevalkit import mark, read_vlmevalkit, write_vlmevalkit
from vold.evals.marking.golds import handle_golds
from vold.evals.marking.llm_judge import Judge
from vold.evals.metrics import summarise
from vold.run.files import read_jsonl
from vold.run.model_sections import Endpoint
from vold.run.records import to_json
from vold.types import SamplingParams

if TYPE_CHECKING:
    from vold.data.benchmarks.item import Item
    from vold.run.results import Figures

MOST_UNREAD = 0.5
"""Share of answers that may be unreadable."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit status 0: done; 2: the user can mend it."""
    args = _parser().parse_args(argv)
    try:
        loaded = load(args.benchmark, path=args.data, split=args.split)
        items, _ = handle_golds(loaded.items, getattr(args, "protocol", "rule"))
        if args.verb == "export":
            count = write_vlmevalkit(
                read_jsonl(args.answers, whole=True), loaded.items, args.file, table=args.table, sample=args.sample
            )
            print(f"wrote {count} answers to {args.file}")
        elif args.verb == "mark":
            print(json.dumps(_marked(args, items), indent=2))
        else:
            params = SamplingParams(args.max_new_tokens, args.temperature)
            print(f"wrote {write_lmms_task(items, args.protocol, params, args.folder)}")
    except VoldError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _marked(args: argparse.Namespace, items: list[Item]) -> dict[str, object]:
    file: Path = args.file
    judge = _judge(args)
    read = read_lmms_samples if file.suffix == ".jsonl" else read_vlmevalkit
    found = read(file, items)
    figures = summarise(mark(found, items, judge=judge), benchmark=args.benchmark)
    _refuse_unread(figures, str(file), judged=judge is not None)
    out: dict[str, object] = {"protocol": "rule" if judge is None else "vlmevalkit", **to_json(figures)}
    out |= {"not_answered": len(items) - len(found), "mean_tokens": figures.mean_tokens or None}
    del out["by_kind"]
    return out


def _judge(args: argparse.Namespace) -> Judge | None:
    """The judge of the protocol: `vlmevalkit` for VLMEvalKit's own files, where it has the benchmark, else `rule`.

    Raises:
        ConfigError: the protocol needs a judge and none is named, or the other way round.
    """
    theirs = args.file.suffix != ".jsonl" and "vlmevalkit" in get_benchmark(args.benchmark).prompts
    protocol = args.protocol or ("vlmevalkit" if theirs else "rule")
    if protocol == "rule":
        if args.judge is not None:
            raise ConfigError("the rule protocol has no judge", where="--judge", fix="add --protocol vlmevalkit")
        return None
    if args.judge is None or args.judge_url is None:
        raise ConfigError(
            "VLMEvalKit's prompts ask for no box and no answer line: its answers need its protocol, and that a judge",
            where=str(args.file),
            fix="give --judge MODEL --judge-url http://..:8000/v1, or --protocol rule where that protocol asked",
        )
    endpoint = Endpoint(urls=(args.judge_url,), model=args.judge, key_env=args.judge_key_env)
    cache: Path = args.judge_cache or args.file.with_name(f"{args.file.name}.judge")
    return Judge(EndpointSampler(endpoint), cache, shared=True)


def _refuse_unread(figures: Figures, file: str, *, judged: bool) -> None:
    """Refuse a figure that says more about the protocol than about the answers.

    Raises:
        DataError: more than half of the answers cannot be read.
    """
    unread = figures.judge_failed if judged else figures.outcomes.get("unparsed", 0)
    total = sum(figures.outcomes.values())
    if unread > MOST_UNREAD * total:
        raise DataError(
            "most of these answers cannot be read by the protocol that marks them: it is not the one that asked",
            where=file,
            got=f"{unread:,} of {total:,} unparsed",
            fix="is the judge the right model?" if judged else "mark them with --protocol vlmevalkit and a judge",
        )


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
    marked.add_argument(
        "--protocol",
        choices=get_args(ProtocolName),
        help="that asked; vlmevalkit for VLMEvalKit's files where it has the benchmark, else rule",
    )
    marked.add_argument("--judge", metavar="MODEL", help="the judge's name on its server")
    marked.add_argument("--judge-url", help="the judge's base address, which ends in /v1")
    marked.add_argument("--judge-key-env", help="environment variable that holds the judge's key")
    marked.add_argument("--judge-cache", type=Path, help="the judge's replies; beside the file if absent")
    task = verbs.add_parser("lmms", parents=[common], help="a benchmark as a task of lmms-eval")
    task.add_argument("folder", type=Path, help="where the task's files go")
    task.add_argument("--protocol", choices=get_args(ProtocolName), default="rule", help="how it asks")
    task.add_argument("--max-new-tokens", type=int, default=8192)
    task.add_argument("--temperature", type=float, default=0.0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
