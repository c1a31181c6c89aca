"""What the site has from outside of docs/: the README as its first page, the changelog, and files that pages link to.

A hook of MkDocs (see mkdocs.yml). The pages are read on GitHub, too, so their links are those of the checkout; here
they become links of the site. What such a link names has to be there: the strict build ends with a warning else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
# Files of the checkout that are pages of the site.
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
_UP = re.compile(r"(?<=\]\()\.\./([^)#]+)")
_FROM_ROOT = re.compile(r"(?<=\]\()(?!https?:|#)([^)#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, page in PAGES.items():
        text = _FROM_ROOT.sub(lambda link: _from_root(link[1]), (ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for path in sorted(set(_linked(files))):
        files.append(File.generated(config, f"source/{path}", content=(ROOT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return markdown if page.file.src_uri in PAGES.values() else _UP.sub(lambda link: _from_root(link[1]), markdown)


def _linked(files: Files) -> Iterator[str]:
    """Files of the checkout, not pages of the site, that pages link to."""
    for file in files.documentation_pages():
        if file.src_uri not in PAGES.values():
            yield from (path for path in _UP.findall(file.content_string) if path not in PAGES and _is_file(path))


def _is_file(path: str) -> bool:
    return (ROOT / path).is_file()


def _from_root(path: str) -> str:
    """A link of the site to what lies at `path` in the checkout."""
    return PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}")
