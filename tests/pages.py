"""Helpers for the tests of README and of the pages in docs/."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = r"```python\n(.*?)```"
SMALLER = {"192, 192": "64, 96", "96, 128": "48, 64", "min(8, ": "min(2, "}
"""What makes the examples for detection and segmentation quick."""


def code_of(page: pathlib.Path) -> list[str]:
    """Returns the blocks of Python code on a page."""
    return re.split(BLOCK, page.read_text(), flags=re.DOTALL)[1::2]


def commands_of(page: pathlib.Path) -> list[str]:
    """Returns the shell commands on a page, without comments."""
    text = page.read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(r"^ {4}\S.*(?:\n {4}.*)*", text, re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`(python -m [^`]+|python examples/[^`]+|keras-t2t [a-z][^`]+)`", text.replace("\n", " "))
    return [re.sub(r" +#.*", "", line).strip() for line in lines + spans]


def run(page: pathlib.Path, capsys, **changes: str) -> dict:
    """Runs the code of a page in order, in the current folder, for one epoch. Returns its variables.

    Code that must not be run, because it downloads weights or would take hours, is in a function that is not called. If a line
    ends in `# (...)`, that is what it has to print.
    """
    parts = re.split(BLOCK, page.read_text(), flags=re.DOTALL)
    parts[::2] = ["\n" * (text.count("\n") + 1) for text in parts[::2]]  # errors show the lines of the page
    code = "".join(parts)
    for old, new in changes.items():
        assert old in code
        code = code.replace(old, new)
    code = re.sub(r"\bepochs=\d+", "epochs=1", code)
    # A few steps are faster without a graph.
    code = code.replace('metrics=["accuracy"])', 'metrics=["accuracy"], run_eagerly=True)')
    namespace: dict = {}
    exec(compile(code, str(page), "exec"), namespace)
    printed = capsys.readouterr().out
    for expected in re.findall(r"^print\(.*\)  # (\(.*\))$", code, re.MULTILINE):
        assert expected in printed
    return namespace
