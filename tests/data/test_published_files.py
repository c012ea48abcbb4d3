"""Every benchmark is fetched from the hub, and read from a copy of its repository, in the files it is published in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import layouts
from hub_listings import LISTINGS, dynamath, write
from hub_server import HubServer
from vold.data.benchmarks.registry import benchmarks, load
from vold.errors import DataError

SETS = [(listing, name, split) for listing in LISTINGS for name, split in listing.files]
IDS = [f"{name}-{split}" for _, name, split in SETS]

# In a process of its own: a hub client reads HF_ENDPOINT where it is imported.
CHILD = """
import json, sys
from vold.data.benchmarks.registry import load
from vold.errors import DataError
for name, split, revision in json.loads(sys.argv[1]):
    try:
        found = load(name, split=split, revision=revision)
        said = [len(found.items), found.content_hash, found.revision, found.source, len(found.bad)]
    except DataError as error:
        said = str(error)
    print(json.dumps(said))
"""


@dataclass(frozen=True)
class Fetched:
    replies: list[Any]
    asked: list[str]


def fetch(endpoint: str, cache: Path, sets: list[tuple[str, str, str | None]]) -> list[Any]:
    """What `load` says of each set, from a hub at `endpoint` and nowhere else."""
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    left_out = ("HF_HUB_CACHE", "HF_TOKEN", "HUGGINGFACE_HUB_CACHE")
    env = {k: v for k, v in os.environ.items() if k not in left_out} | own
    command = [sys.executable, "-c", CHILD, json.dumps(sets)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for listing in LISTINGS:
        write(listing, folder)
    return folder


@pytest.fixture(scope="module")
def fetched(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Fetched:
    with HubServer(root) as hub:
        replies = fetch(hub.url, tmp_path_factory.mktemp("cache"), [(name, split, None) for _, name, split in SETS])
        return Fetched(replies, hub.asked)


def wanted(tmp_path: Path, files: dict[str, Any]) -> Path:
    """The files of one split, alone in a folder."""
    for n, (name, rows) in enumerate(sorted(files.items())):
        if isinstance(rows, bytes):
            (tmp_path / name).write_bytes(rows)
        elif name.endswith(".parquet"):
            layouts.parquet(tmp_path / f"{n:02}_{Path(name).name}", rows)
        else:
            (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def test_every_split_of_every_benchmark_has_a_listing() -> None:
    listed = {(name, split) for _, name, split in SETS}
    assert listed == {(b.name, split) for b in benchmarks().values() for split in b.size}
    assert {(name, listing.repo) for listing, name, _ in SETS} == {(b.name, b.repo) for b in benchmarks().values()}


@pytest.mark.parametrize(("listing", "name", "split"), SETS, ids=IDS)
def test_the_hub_gives_the_published_files(
    fetched: Fetched, listing: Any, name: str, split: str, tmp_path: Path
) -> None:
    expected = load(name, path=wanted(tmp_path, listing.files[name, split]), split=split)
    items, content, revision, source, bad = fetched.replies[SETS.index((listing, name, split))]
    assert (items, content, bad) == (len(expected.items), expected.content_hash, len(expected.bad))
    assert (revision, source) == (HubServer.commit(listing.repo), f"hub:{listing.repo}")


def test_nothing_else_is_downloaded(fetched: Fetched) -> None:
    names = {file for listing in LISTINGS for files in listing.files.values() for file in files}
    assert set(fetched.asked) == names


@pytest.mark.parametrize(("listing", "name", "split"), SETS, ids=IDS)
def test_a_downloaded_repository_is_read_in_the_same_files(
    fetched: Fetched, root: Path, listing: Any, name: str, split: str, tmp_path: Path
) -> None:
    expected = fetched.replies[SETS.index((listing, name, split))]
    shutil.copytree(root / listing.repo, tmp_path / "a copy" / "of it")
    copies = [root / listing.repo, tmp_path / "a copy"]
    if name != "visulogic":  # its pictures would be a zip in a zip
        copies.append(Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", root / listing.repo)))
    for path in copies:
        found = load(name, path=path, split=split)
        assert [len(found.items), found.content_hash, len(found.bad)] == [expected[0], expected[1], expected[4]]


@pytest.mark.parametrize("form", ["sample_variant", "sample"])
def test_dynamath_has_ten_variants_under_both_names(form: str, tmp_path: Path) -> None:
    write(dynamath(form), tmp_path / "hub" / "sample_01")
    with HubServer(tmp_path / "hub" / "sample_01") as hub:
        (said,) = fetch(hub.url, tmp_path / "cache", [("dynamath", "sample_variant", None)])
    found = load("dynamath", path=tmp_path / "hub")
    assert said[0] == len(found.items) == 30
    assert {i.tags["variant"] for i in found.items} == {str(n) for n in range(1, 11)}
    assert [b.why for b in found.bad] == []


def test_either_table_of_mmstar_will_do(tmp_path: Path) -> None:
    layouts.mmstar_tsv(tmp_path / "MMStar.tsv")
    assert len(load("mmstar", path=tmp_path).items) == 4


def test_a_repository_with_other_files_says_what_is_there_and_what_was_expected(tmp_path: Path) -> None:
    layouts.parquet(tmp_path / "hub" / "AI4Math/MathVerse" / "data" / "all.parquet", layouts.mathverse())
    with HubServer(tmp_path / "hub") as hub:
        (said,) = fetch(hub.url, tmp_path / "cache", [("mathverse", "testmini", None)])
    assert "data/all.parquet" in said
    assert "expected: testmini.parquet" in said


def test_a_commit_that_was_fetched_is_read_again_without_the_hub(root: Path, tmp_path: Path) -> None:
    commit = HubServer.commit("MMMU/MMMU_Pro")
    with HubServer(root) as hub:
        first = fetch(hub.url, tmp_path, [("mmmu_pro_vision", "test", None)])
    again = fetch(hub.url, tmp_path, [("mmmu_pro_vision", "test", commit)])  # nobody listens there any more
    assert again == first


def test_a_copy_without_one_of_its_shards_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "MMMU/MMMU_Pro", tmp_path / "copy")
    (tmp_path / "copy" / "vision" / "test-00001-of-00002.parquet").unlink()
    with pytest.raises(DataError, match="not all files") as caught:
        load("mmmu_pro_vision", path=tmp_path / "copy")
    assert "vision/test-00001-of-00002.parquet" in str(caught.value)


@pytest.mark.parametrize(
    ("gold", "why"), [("", "the gold answer is empty"), ("Z", "the gold answer is no option: 'Z'")]
)
@pytest.mark.parametrize(("bad", "refused"), [(1, False), (2, False), (3, True), (20, True)])
def test_more_than_a_twentieth_of_bad_rows_is_an_error_that_shows_them(
    tmp_path: Path, bad: int, refused: bool, gold: str, why: str
) -> None:
    """A judge can mark the few whose gold is no option; they are items."""
    rows = [dict(layouts.mmstar()[0], index=n, answer=gold if n < bad else "A") for n in range(40)]
    file = layouts.parquet(tmp_path / "mmstar.parquet", rows)
    if not refused:
        found = load("mmstar", path=file)
        assert (len(found.items), len(found.bad)) == ((40, 0) if gold else (40 - bad, bad))
        return
    with pytest.raises(DataError, match=f"{bad} of 40 rows") as caught:
        load("mmstar", path=file)
    assert f"{bad} x {why}" in str(caught.value)
    assert "row 1" in str(caught.value)
