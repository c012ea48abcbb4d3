"""A run's model with its card, on a hub of this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

import tiny
from vold.cli import main
from vold.errors import CheckpointError, DataError
from vold.evals.evaluate import evaluate
from vold.report.model_card import model_card
from vold.run.recipe import Recipe
from vold.run.view import Run
from vold.training.sft import sft


class Hub:
    """Takes models as a hub does: repositories by name with what was asked for, and the files of their one commit."""

    def __init__(self) -> None:
        self.made, self.files, self.away = dict[str, bool](), dict[str, dict[str, bytes]](), False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hub.away:
                    self.close_connection = True
                    return
                status, reply = hub.reply(self.path, body, self.headers.get("Authorization", ""))
                text = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reply(self, path: str, body: bytes, token: str) -> tuple[int, object]:
        """Status and content of an answer; connections are closed without one while `away`."""
        if token != "Bearer hf_mine":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.made[name] = asked.get("visibility") == "private"
            return 200, {"url": f"{self.url}/{name}"}
        repo = "/".join(path.removeprefix("/api/models/").split("/")[:2])
        if path == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return 200, {"errors": [], "warnings": [] if "library_name" in head else ["no library"]}
        if "/preupload/" in path:
            files = [f["path"] for f in json.loads(body)["files"]]
            return 200, {"files": [{"path": f, "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        lines = [json.loads(line) for line in body.splitlines()]
        taken = {o["value"]["path"]: base64.b64decode(o["value"]["content"]) for o in lines if o["key"] == "file"}
        self.files[repo] = taken
        commit = "a" * 40
        return 200, {"commitUrl": f"{self.url}/{repo}/commit/{commit}", "commitOid": commit}


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run whose cold start has ended, evaluated."""
    home = tmp_path_factory.mktemp("home") / "shared"
    home.mkdir()
    recipe = tiny.recipe(home, sft={"steps": 2})
    tiny.write_traces(home, recipe)
    sft(recipe)
    evaluate(tiny.recipe(home, sft={"steps": 9}, eval={"samples": 2}))
    return recipe


def pushed(run: Path, hub: Hub, *words: str, token: str = "hf_mine") -> subprocess.CompletedProcess[str]:
    home = {"HOME": str(run.parents[1]), "HF_HOME": str(run.parents[1] / "hf")}
    env = {
        **os.environ,
        **home,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = [sys.executable, "-m", "vold.cli", "push", str(run), "acme/tiny", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(("words", "private"), [((), True), (("public=true",), False)])
def test_the_model_its_card_recipe_and_results_arrive_in_one_commit(
    recipe: Recipe, hub: Hub, words: tuple[str, ...], private: bool
) -> None:
    run = recipe.run.dir
    done = pushed(run, hub, *words)
    assert done.returncode == 0, done.stderr
    wrote = f"wrote {hub.url}/acme/tiny/commit/{'a' * 40}"
    after = "next: vold eval paper-eval student.path=acme/tiny run.dir=runs/eval-tiny"
    assert done.stdout.splitlines()[-2:] == [wrote, after]
    assert hub.made == {"acme/tiny": private}
    files = hub.files["acme/tiny"]
    final, results = run / "sft" / "final", run / "eval" / "results.json"
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert files[name] == (final / name).read_bytes()
    assert json.loads(files["eval/results.json"])["stages"] == json.loads(results.read_text())["stages"]
    sent = yaml.safe_load(files["recipe.yaml"])  # each stage as it ran, whatever the others were started with
    assert (sent["sft"]["steps"], sent["eval"]["samples"], sent["run"]["dir"]) == (2, 2, "~/shared/run")
    card = files["README.md"].decode()
    assert card == model_card(Run(run)).replace(f"{run.parents[1]}/", "~/")
    assert not [name for name, content in files.items() if str(run.parents[1]).encode() in content]
    assert "manifest.json" not in files


def test_results_of_other_weights_are_not_sent_beside_a_card_that_says_so(recipe: Recipe, hub: Hub) -> None:
    stamp = recipe.run.dir / "eval" / "sft" / "model.json"
    kept = stamp.read_text()
    stamp.write_text(json.dumps({**json.loads(kept), "weights": "0" * 64}))  # as if trained on since
    done = pushed(recipe.run.dir, hub)
    stamp.write_text(kept)
    assert done.returncode == 0, done.stderr
    files = hub.files["acme/tiny"]
    assert b"These weights were not evaluated." in files["README.md"]
    assert "recipe.yaml" in files and not [name for name in files if name.startswith("eval/")]


def test_the_card_says_what_was_done_and_what_was_not_shown(recipe: Recipe) -> None:
    run = recipe.run.dir
    card = model_card(Run(run))
    head = yaml.safe_load(card.split("---")[1])
    assert head["pipeline_tag"] == "image-text-to-text" and "base_model" not in head  # a directory of this machine
    assert hashlib.sha256((run / "traces" / "traces.jsonl").read_bytes()).hexdigest() in card
    results = json.loads((run / "eval" / "results.json").read_text())
    for name, found in results["stages"]["sft"].items():
        accuracy, low, high = (f"{100 * found[key]:.1f}" for key in ("accuracy", "low", "high"))
        (paired,) = (c for c in results["comparisons"] if (c["set"], c["model"]) == (name, "sft"))
        difference = " ".join(
            [f"{100 * paired['difference']:+.1f}", f"[{100 * paired['low']:+.1f}, {100 * paired['high']:+.1f}]"]
        )
        assert f"| {name} | {accuracy} [{low}, {high}] | {difference} | {found['n']} | 2 |" in card
        assert (f"difference from the base student on {name}" in card) == (paired["low"] <= 0 <= paired["high"])
    assert "Cold start: 2 steps of 4 traces." in card and "Stage 2" not in card
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["sft"]["steps"] == 2
    assert "the teacher's answers, for the cold start" in card


def test_a_wrong_token_a_hub_that_hangs_up_no_model_and_a_damaged_one_are_refused(
    recipe: Recipe, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = pushed(recipe.run.dir, hub, token="hf_other")
    assert done.returncode == 2 and "hf auth login" in done.stderr and "Traceback" not in done.stderr
    hub.away = True
    done = pushed(recipe.run.dir, hub)
    assert done.returncode == 2 and "the hub does not take this model" in done.stderr, done.stderr
    empty = tiny.recipe(tmp_path)
    tiny.begun(empty, "sft")
    with pytest.raises(DataError, match="no trained model yet"):
        model_card(Run(empty.run.dir))
    assert main(["push", str(recipe.run.dir), "acme/tiny", "private=true"]) == 2
    assert "vold push RUN OWNER/NAME [public=true]" in capsys.readouterr().err
    weights = recipe.run.dir / "sft" / "final" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError):
        model_card(Run(recipe.run.dir))
    weights.write_bytes(whole)
