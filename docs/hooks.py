"""What MkDocs cannot do by itself: pages that are files of the repository, links to its other files, examples in docstrings."""

import ast
import inspect
import logging
import pathlib
import posixpath
import re
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "saved_models/README.md": "shipped-weights.md",
}
"""Files outside of this folder that are pages of the site."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```)$", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^Example:\n\n((?:>>> .*\n?)(?:.+\n?)*)", re.MULTILINE)
SECTION = re.compile(r"^((?:Input|Output) shape|Call arguments|Glossary of shapes):\n((?:    .*\n?|\n)+)", re.MULTILINE)
log = logging.getLogger("mkdocs.hooks.keras_t2t")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links between files of the repository links between pages of the site."""
    sources = {page: source for source, page in PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def replace(link: re.Match) -> str:
        mark, text, target = link.groups()
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / path).exists():
            log.warning(f"{source} links to {target}, which does not exist")
        if path in PAGES or (path.startswith("docs/") and (ROOT / path).is_file()):
            path = PAGES.get(path, path.removeprefix("docs/"))
            path = posixpath.relpath(path, posixpath.dirname(page.file.src_uri) or ".")
            return f"{mark}[{text}]({path}{'#' + anchor if anchor else ''})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path})"
        return text if "`" in text else f"`{text}`"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(replace, part) for part in parts)


def as_text(section: re.Match) -> str:
    title, text = section[1], inspect.cleandoc("\n" + section[2])
    if title == "Call arguments":
        text = re.sub(r"^(\w+): ", r"- `\1`: ", text, flags=re.MULTILINE)
    return f"**{title}:**\n\n{text}\n\n"


class Docstrings(griffe.Extension):
    """Shows examples as code and the sections of Keras as text. Finds the docstring that is made at run time."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = EXAMPLE.sub(r"**Example:**\n\n```pycon\n\1\n```\n", obj.docstring.value)
            obj.docstring.value = SECTION.sub(as_text, text)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        module, texts = pkg["applications"], {}
        for node in ast.parse(module.filepath.read_text()).body:
            if isinstance(node, ast.Assign):
                name = ast.unparse(node.targets[0])
                if isinstance(node.value, ast.Constant) or name == "T2TViT.__doc__":
                    texts[name] = eval(compile(ast.Expression(node.value), str(module.filepath), "eval"), {}, texts)
        function = module["T2TViT"]
        function.docstring = griffe.Docstring(inspect.cleandoc(texts["T2TViT.__doc__"]), parent=function, parser="google")
        self.on_instance(obj=function)
