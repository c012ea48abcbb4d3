"""`vold push`: a run's model, its model card and its results on the hub, in one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vold.errors import ConfigError
from vold.report.model_card import for_others, model_card, trained_model, was_evaluated
from vold.run.as_run import RECIPE
from vold.run.folders import MANIFEST
from vold.run.hub import first_line, hub_errors

if TYPE_CHECKING:
    from vold.run.view import Run

CARD = "README.md"
RESULTS = ("eval/results.json", "eval/results.csv")


def push(run: Run, repo: str, *, public: bool) -> str:
    """Upload the last stage's model, with its card, the run's recipe and the evaluation of these weights. Returns the
    address of the commit.

    Args:
        repo: OWNER/NAME; made, private unless `public`, where there is none.

    Raises:
        DataError, CheckpointError: there is no whole model.
        ConfigError: the hub cannot be reached or does not take it.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    stage, final = trained_model(run)
    files = {f.name: f for f in sorted(final.iterdir()) if f.name not in (CARD, MANIFEST)}
    results = RESULTS if was_evaluated(run, stage, final) else ()
    texts = (RECIPE, *(name for name in results if (run.path / name).is_file()))
    written = {CARD: model_card(run)} | {name: for_others((run.path / name).read_text()) for name in texts}
    added = [CommitOperationAdd(name, text.encode()) for name, text in written.items()]
    added += [CommitOperationAdd(name, str(file)) for name, file in files.items()]
    try:
        api = HfApi()
        api.create_repo(repo, private=not public, exist_ok=True)
        return str(api.create_commit(repo, added, commit_message=f"{run.path.resolve().name}: {stage}").commit_url)
    except hub_errors() as error:
        raise ConfigError(
            "the hub does not take this model",
            where=f"hub model {repo}",
            got=first_line(error),
            fix="log in with `hf auth login` and a token that may write, and check the name: OWNER/NAME",
        ) from None
