"""What people see before they install the package agrees with the package: versions, workflows, citation, security."""

import configparser
import pathlib
import re

import pytest
import yaml

import keras_t2t
from keras_t2t.sharing import CITATION
from keras_t2t.weights.formats import inert_pickle, limits, torch_file

ROOT = pathlib.Path(__file__).parents[1]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
MATRIX = WORKFLOWS["tests"]["jobs"]["tests"]["strategy"]["matrix"]["include"]


def pinned(file):
    """Returns the versions in a file of requirements, such as `{"keras": "3.5"}`, without the patch level."""
    lines = (ROOT / "tests" / file).read_text().splitlines()
    return {name: version.rpartition(".")[0] for name, _, version in (line.partition("==") for line in lines) if version}


@pytest.mark.parametrize(
    ("row", "script", "file"),
    [("newest", "./scripts/test --all", "newest-versions.txt"), ("lowest", "./scripts/test-lowest", "lowest-versions.txt")],
)
def test_table_of_versions_states_what_the_workflow_tests(row, script, file):
    page = (ROOT / "docs" / "compatibility.md").read_text()
    (cells,) = re.findall(rf"^\| {row} tested \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", page, re.MULTILINE)
    (python,) = (job["python"] for job in MATRIX if job["script"] == script)
    versions = pinned(file)
    assert cells == (python, versions["tensorflow"], versions["keras"])
    assert f"`{script}`" in page
    installer = {"newest": "setup", "lowest": "test-lowest"}[row]
    assert f"tests/{file}" in (ROOT / "scripts" / installer).read_text()


def test_page_states_where_the_wheel_is_installed():
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "compatibility.md").read_text())
    (python,) = (job["python"] for job in MATRIX if job["script"] == "./scripts/package")
    assert f"the wheel is installed on Python {python}, with" in page


def test_the_lowest_python_is_tested():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options"]["python_requires"] == f">={min((job['python'] for job in MATRIX), key=lambda v: int(v[2:]))}"


def test_workflows_run_scripts_that_exist():
    steps = [step for workflow in WORKFLOWS.values() for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [job["script"] for job in MATRIX] + [step["run"] for step in steps if "run" in step]
    scripts = {name for command in commands for name in re.findall(r"\./(scripts/[\w-]+)", command)}
    assert {"scripts/check", "scripts/test", "scripts/test-lowest", "scripts/package"} <= scripts
    for script in scripts:
        assert (ROOT / script).stat().st_mode & 0o100, f"{script} is not executable"


def test_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert citation["version"] == keras_t2t.__version__
    assert citation["license"] == setup["metadata"]["license"]
    assert citation["authors"] == [{"name": setup["metadata"]["author"]}]
    (paper,) = citation["references"]
    bibtex = re.sub(r"\s+", " ", CITATION)
    assert f"title = {{{paper['title']}}}" in bibtex and f"booktitle = {{{paper['collection-title']}}}" in bibtex
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"author = {{{authors}}}" in bibtex and f"year = {{{paper['year']}}}" in bibtex


def test_security_page_states_the_limits_of_the_readers():
    page = re.sub(r"\s+", " ", (ROOT / "SECURITY.md").read_text())
    assert f"at most {limits.MAX_EXPANSION} times its own size, plus 1 MiB" in page
    assert f"at most {inert_pickle.MAX_OPERATIONS:,} operations" in page
    assert f"at most {torch_file.MAX_ZIP_ENTRIES:,} entries" in page
