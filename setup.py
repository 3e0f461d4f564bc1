"""All metadata is in setup.cfg, except for the description: README without its pictures and its links to other files.

PyPI shows neither, because it does not have these files.
"""

import pathlib
import re

import setuptools

LINK = r"\[([^\]]*)\]\((?!https://)[^)]*\)"
readme = (pathlib.Path(__file__).parent / "README.md").read_text(encoding="utf-8")
description = re.sub(LINK, r"\1", re.sub(rf"!{LINK}\n+\*.*?\*\n\n", "", readme, flags=re.DOTALL))

setuptools.setup(long_description=description, long_description_content_type="text/markdown")
