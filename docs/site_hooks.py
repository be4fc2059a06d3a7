"""Pages of the site that are not written in docs/: those of the folder above, and the reference of the API."""

from __future__ import annotations

import os.path
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

#: File of the repository, outside of docs/ -> where it stands in the site.
COPIED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "constraints.txt": "files/constraints.txt",
    ".env.example": "files/env.example.txt",
    "examples/first_graph.ipynb": "files/first_graph.ipynb",
}
#: Page of the API reference -> its title, and the modules or packages it shows.
API = {
    "config": ("Config and build", ("gcache.config", "gcache.build", "gcache.errors", "gcache.environment")),
    "cache": ("Caches", ("gcache.cache",)),
    "agents": ("Agents", ("gcache.agents",)),
    "llm": ("Language models", ("gcache.llm",)),
    "gnn": ("Topologies", ("gcache.gnn",)),
    "links": ("Links between models", ("gcache.links",)),
    "graph": ("Graph", ("gcache.graph",)),
    "tasks": ("Tasks", ("gcache.tasks",)),
    "evaluation": ("Evaluation", ("gcache.evaluation",)),
    "inspect": ("Inspect", ("gcache.inspect",)),
    "training": ("Training", ("gcache.training",)),
    "serve": ("Serve", ("gcache.serve",)),
}
_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    root = Path(config.config_file_path).parent
    for name, uri in COPIED.items():
        files.append(File.generated(config, uri, content=(root / name).read_text(encoding="utf-8")))
    for name, (title, modules) in API.items():
        shown = "\n\n".join(f"::: {module}" for named in modules for module in _modules(root, named))
        files.append(File.generated(config, f"api/{name}.md", content=f"# {title}\n\n{shown}\n"))
    files.append(File.generated(config, "api/index.md", content=_overview()))
    for folder in sorted({Path(file.src_uri).parent for file in files if file.src_uri.startswith("results/")}):
        files.append(File.generated(config, f"{folder.as_posix()}/index.md", content=_listing(root / "docs", folder)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links of a page as they are in the repository, turned into those of the site."""
    here = page.file.src_uri
    source = next((name for name, uri in COPIED.items() if uri == here), f"docs/{here}")

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        uri = COPIED.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if uri is None:
            return match[0]
        if uri.startswith("results/") and not posixpath.splitext(uri)[1]:
            uri += "/index.md"
        return f"{match[1]}{os.path.relpath(uri, posixpath.dirname(here) or '.')}{match[3]}"

    return _LINK.sub(turned, markdown)


def _modules(root: Path, name: str) -> list[str]:
    """A module, or a package and all that is in it, by name."""
    place = root.joinpath(*name.split("."))
    if not place.is_dir():
        return [name]
    inside = [path.relative_to(root).with_suffix("").parts for path in place.rglob("*.py")]
    return sorted(".".join(parts).removesuffix(".__init__") for parts in inside)


def _listing(docs: Path, folder: Path) -> str:
    """A page for a folder of raw results, which links may name as a whole."""
    rows = "\n".join(
        f"| [{path.name}]({path.relative_to(docs / folder)}) | {path.stat().st_size / 1024:.1f} |"
        for path in sorted((docs / folder).rglob("*"))
        if path.is_file()
    )
    text = "Raw results. The pages that name them say how they were made."
    return f"# {folder.as_posix()}\n\n{text}\n\n| file | KiB |\n|---|---|\n{rows}\n"


def _overview() -> str:
    rows = "\n".join(
        f"| [{title}]({name}.md) | {', '.join(f'`{module}`' for module in modules)} |"
        for name, (title, modules) in API.items()
    )
    return (
        "# API\n\nMost programs need only what `from gcache import ...` gives.\n\n::: gcache\n\n"
        "## Rooms\n\n"
        f"| page | modules |\n|---|---|\n{rows}\n"
    )
