"""Folders with a manifest: whole or absent, and what is damaged in them is named."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vold.errors import CheckpointError
from vold.run.folders import MANIFEST, drop_older, latest_checkpoint, new_directory, sweep, verify_directory


def made(path: Path, text: str = "weights") -> Path:
    with new_directory(path) as d:
        (d / "a.txt").write_text(text)
        (d / "deep").mkdir()
        (d / "deep" / "b.txt").write_text("b")
    return path


@pytest.mark.parametrize("name", ["a.txt", "deep/b.txt"])
@pytest.mark.parametrize("damage", ["gone", "changed", "folder", "loop"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    folder = made(tmp_path / "model")
    verify_directory(folder)
    file = folder / name
    if damage == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:
        file.unlink()
    if damage == "folder":
        file.mkdir()
    if damage == "loop":
        file.symlink_to(file.name)
    with pytest.raises(CheckpointError) as caught:
        verify_directory(folder)
    assert caught.value.where == str(file)


def test_a_file_that_the_manifest_does_not_know_is_refused_but_notes_are_not(tmp_path: Path) -> None:
    folder = made(tmp_path / "model")
    (folder / "README.md").write_text("mine")
    (folder / ".gitattributes").write_text("mine")
    verify_directory(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json\n.*does not know"):
        verify_directory(folder)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"a.txt": 3}', "{"])
def test_a_damaged_manifest_lets_nothing_in(tmp_path: Path, text: str) -> None:
    folder = made(tmp_path / "model")
    (folder / MANIFEST).write_text(text)
    with pytest.raises(CheckpointError):
        verify_directory(folder)


def test_without_a_manifest_ours_are_refused_and_foreign_models_pass(tmp_path: Path) -> None:
    foreign, state, final = tmp_path / "model", tmp_path / "sft" / "step-000002", tmp_path / "sft" / "final"
    for folder in (foreign, state, final):
        made(folder)
        (folder / MANIFEST).unlink()
    verify_directory(foreign)
    verify_directory(final)  # nothing beside it says that a stage has made it
    (tmp_path / "sft" / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="the stage then begins with its first step"):
        verify_directory(state)
    with pytest.raises(CheckpointError, match="repeat `vold sft`, which saves it from its last state"):
        verify_directory(final)


def test_only_numbered_states_are_states(tmp_path: Path) -> None:
    for name in ("step-2", "step-000010", "step-old", "step-000011.bak", "step-", "step-1e9", "step--3"):
        made(tmp_path / name)
    newest = latest_checkpoint(tmp_path)
    assert newest == tmp_path / "step-000010"
    drop_older(tmp_path, newest)
    assert not (tmp_path / "step-2").exists()
    assert {"step-old", "step-000011.bak", "step-", "step-1e9", "step--3"} < {p.name for p in tmp_path.iterdir()}


def test_a_file_in_the_place_of_the_newest_state_is_found_and_refused(tmp_path: Path) -> None:
    made(tmp_path / "step-000002")
    (tmp_path / "step-000004").touch()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    with pytest.raises(CheckpointError, match=r"step-000004\n.*no directory"):
        verify_directory(newest)


def test_a_state_that_is_being_dropped_is_no_state_and_is_swept_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = made(tmp_path / "step-000002"), made(tmp_path / "step-000004")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            drop_older(tmp_path, new)
    assert not old.exists()
    (tmp_path / ".settings.json.tmp").write_text("half")
    (tmp_path / ".final.tmp").mkdir()
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000004"]


def test_a_folder_whose_replacement_was_killed_between_two_renames_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "set", "before")
    rename = Path.replace

    def replace(self: Path, to: Path) -> Path:
        if to == folder:
            raise KeyboardInterrupt
        return rename(self, to)

    with monkeypatch.context() as m:
        m.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            made(folder, "after")
    assert not folder.exists()
    sweep(tmp_path)
    verify_directory(folder)
    assert (folder / "a.txt").read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert (made(folder, "after") / "a.txt").read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_every_name_is_flushed_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    real = os.fsync

    def fsync(file: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{file}")))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = made(tmp_path / "new" / "set")
    inside = [f for f in flushed if f.parent.name == ".set.tmp"]
    assert {f.name for f in inside} == {"a.txt", "deep", MANIFEST}
    assert tmp_path / "new" / ".set.tmp" / "deep" / "b.txt" in flushed
    assert flushed[:1] == [tmp_path]  # `new` is in it
    assert flushed[-1] == folder.parent
    assert json.loads((folder / MANIFEST).read_text()).keys() == {"a.txt", "deep/b.txt"}
