"""The executed notebooks as one page that needs no network and no kernel: build/report/index.html.

    python -m tts.companion.report [--profile NAME] [--only 01,03] [--set NAME=VALUE]

nbconvert renders each notebook as JupyterLab shows it. What is added here makes one page of them: contents, links that
stay inside the page, figures' captions and alt texts, mathematics as MathML (MathJax would need the network), and a
style for small screens. The page runs no script and loads nothing: a security policy in its head forbids both, so that
text of a model that got into an output can't either.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tts.companion.parameters import repository
from tts.companion.plan import Job, plan
from tts.errors import InputError

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag
    from nbformat import NotebookNode

PAGE = Path("build") / "report" / "index.html"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
body.jp-Notebook { max-width: 64rem; margin: 0 auto; padding: 0 1rem 4rem; overflow: auto; }
nav { font-family: var(--jp-content-font-family); line-height: 1.7; }
nav summary { font-weight: 600; }
section { border-top: 2px solid #999; margin-top: 3rem; padding-top: 1rem; }
img, svg { max-width: 100%; height: auto; }
.jp-RenderedHTMLCommon, .jp-OutputArea-output, .jp-InputArea-editor { overflow-x: auto; }
.jp-RenderedHTMLCommon { overflow-wrap: anywhere; }
.jp-RenderedHTMLCommon table { overflow-wrap: normal; }
.jp-OutputArea-output pre { font-family: var(--jp-code-font-family); overflow-wrap: normal; white-space: pre; }
figure { margin: 0; }
figcaption { color: #444; font-size: 90%; }
menclose { border: 1px solid; padding: 0.1em 0.2em; }
math[display="block"] { overflow-x: auto; overflow-y: hidden; max-width: 100%; }
@media (max-width: 50rem) {
  body.jp-Notebook { padding: 0 0.5rem 3rem; }
  .jp-InputPrompt, .jp-OutputPrompt, .jp-Cell-inputCollapser, .jp-Cell-outputCollapser { display: none; }
}
"""
NO_WORDS = "A figure without a stored description."
NO_OUTPUT = "This notebook holds no outputs: it was not executed yet."

# As in Jupyter: $...$ within a line, $$...$$ over several; a dollar after a backslash is a dollar.
MATHEMATICS = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|(?<![\\$])\$(?!\s)([^$\n]+?)(?<![\\\s])\$(?!\d)", re.DOTALL)
LONGEST = 2000  # characters of a formula; what is longer is no formula, and its conversion takes minutes
VERBATIM = {"pre", "code", "script", "style", "textarea", "math"}


def main(argv: list[str] | None = None) -> int:
    """Write the page and say where it is; the exit status is 0, or 2 if a notebook of that run is missing."""
    parser = argparse.ArgumentParser(prog="python -m tts.companion.report", description="The notebooks as one page.")
    parser.add_argument("--profile", default="default", help="the profile that they were run with")
    parser.add_argument("--only", default="", metavar="NN", help="only these notebooks, by number: 01,03")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as in that run")
    options = parser.parse_args(argv)
    root = repository()
    if root is None:
        parser.error("the tts that is installed lies outside its repository: clone it and use ./run_all.sh")
    os.chdir(root)
    try:
        jobs = plan(profile=options.profile, only=options.only, changes=options.set, with_apart=True)
        jobs = [job for job in jobs if options.only or not job.apart or not job.destination]  # those that ran
        empty = write(jobs, PAGE)
    except InputError as error:
        print(f"run_all: {error}", file=sys.stderr)
        return 2
    print(f"{PAGE}: {len(jobs)} notebooks, {PAGE.stat().st_size / 1e6:.1f} MB")
    if empty:
        numbers = ",".join(name[:2] for name in empty)
        print(f"without outputs: {', '.join(empty)}; execute them with ./run_all.sh --only {numbers}")
    return 0


def write(jobs: Sequence[Job], page: Path) -> list[str]:
    """Write one page of these notebooks as they were executed; returns the names of those that hold no outputs.

    Notebooks of the committed run are read from notebooks/, all others from the build folder; InputError where one is
    missing. The pages notebooks/*.md come last.
    """
    import nbformat
    from nbformat.v4 import new_markdown_cell, new_notebook

    chapters: dict[str, NotebookNode] = {}
    for job in jobs:
        path = job.built if job.destination else job.source
        if not path.exists():
            raise InputError(f"{path} is not there: execute the notebooks with these options first, without `report`")
        # The build folder goes at times, the copies stay; two runs may share a folder of copies.
        folders = [job.figures / job.destination, Path("figures") / job.destination]
        chapters[job.source.name] = described(nbformat.read(path, as_version=4), folders)
    empty = [Path(name).stem for name, nodes in chapters.items() if not _has_outputs(nodes)]
    for path in sorted(Path("notebooks").glob("*.md")):
        chapters[path.name] = new_notebook(cells=[new_markdown_cell(path.read_text(encoding="utf-8"))])
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(one_page(chapters), encoding="utf-8")
    return empty


def described(nodes: NotebookNode, folders: Sequence[Path]) -> NotebookNode:
    """The notebook with alt texts at its figures and captions below them.

    A figure is the one whose quoted name its cell has; save_figure left its words in NAME.json in one of the folders.
    """
    files = {file.stem: file for folder in reversed(folders) for file in folder.glob("*.json")}
    for cell in nodes.cells:
        named = [name for name in re.findall(r"""["']([a-z0-9_-]+)["']""", cell.source) if name in files]
        words = [json.loads(files[name].read_text(encoding="utf-8")) for name in dict.fromkeys(named)]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                about = words.pop(0) if words else {"alt": NO_WORDS, "caption": ""}
                alt, caption = html.escape(about["alt"]), html.escape(about["caption"])
                image = f'<img alt="{alt}" src="data:image/png;base64,{output.data["image/png"].strip()}">'
                # nbconvert's own template has no place for either.
                output.data = {"text/html": f"<figure>{image}<figcaption>{caption}</figcaption></figure>"}
    return nodes


def one_page(chapters: dict[str, NotebookNode]) -> str:
    """One HTML page of notebooks by file name: contents, then each as a section. Links between them stay inside it."""
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    exporter = HTMLExporter()
    styles: dict[str, None] = {}
    contents, sections = [], []
    for name, nodes in chapters.items():
        rendered, _ = exporter.from_notebook_node(nodes)
        soup = BeautifulSoup(rendered, "html.parser")
        for tag in soup.select("script, iframe, object, embed, a.anchor-link"):
            tag.decompose()
        styles |= dict.fromkeys(str(style) for style in soup.head("style"))  # the same in all of them
        body = soup.main
        _keep_links_inside(body, name, chapters)
        _typeset(body, soup)
        headings = [(tag.get_text(" ", strip=True), tag["id"]) for tag in body(["h1", "h2"]) if tag.get("id")]
        contents.append(_contents(Path(name).stem, headings, anchor=_anchor(name)))
        note = "" if name.endswith(".md") or _has_outputs(nodes) else f"<p><em>{NO_OUTPUT}</em></p>"
        sections.append(f'<section id="{_anchor(name)}">{note}{body.decode_contents()}</section>')
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>Test-time scaling, rerun: the notebooks</title>",
            *styles,
            f"<style>{STYLE}</style>\n</head>",
            '<body class="jp-Notebook" data-jp-theme-light="true" data-jp-theme-name="JupyterLab Light">',
            '<nav class="jp-RenderedHTMLCommon" aria-label="Contents"><h1>Test-time scaling, rerun</h1>',
            *contents,
            "</nav>\n<main>",
            *sections,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _has_outputs(nodes: NotebookNode) -> bool:
    return any(cell.get("outputs") for cell in nodes.cells)


def _anchor(name: str, at: str = "") -> str:
    """The id of a chapter, or of a place in it; two chapters may have the same headings."""
    return f"{Path(name).stem}{'--' * bool(at)}{at}"


def _contents(stem: str, headings: Sequence[tuple[str, str]], *, anchor: str) -> str:
    title, inside = (headings[0][0], headings[1:]) if headings else (stem, [])
    link = f'<a href="#{html.escape(anchor)}">{html.escape(title)}</a>'
    if not inside:
        return f"<p>{link}</p>"
    items = "".join(f'<li><a href="#{html.escape(at)}">{html.escape(text)}</a></li>' for text, at in inside)
    return f"<details><summary>{link}</summary><ul>{items}</ul></details>"


def _keep_links_inside(body: Tag, name: str, chapters: dict[str, NotebookNode]) -> None:
    """Links to another chapter go to it; links to other files of the repository become text, for there is none here."""
    for tag in body(id=True):
        tag["id"] = _anchor(name, tag["id"])
    for link in body("a", href=True):
        file, _, at = link["href"].partition("#")
        if re.match("[a-z]+:", file):
            continue
        if not file or file in chapters:
            link["href"] = f"#{_anchor(file or name, at)}"
        else:
            link.name = "span"
            link.attrs = {"title": f"{file} in the repository"}


def _typeset(body: Tag, soup: BeautifulSoup) -> None:
    """Turn $...$ and $$...$$ into MathML. What can't be read, as in a model's text, stays as it is."""
    from bs4 import BeautifulSoup

    for text in list(body.find_all(string=MATHEMATICS)):
        if any(parent.name in VERBATIM for parent in text.parents):
            continue
        parts, end = [], 0
        for found in MATHEMATICS.finditer(text):
            parts += [soup.new_string(text[end : found.start()]), BeautifulSoup(_mathml(found), "html.parser")]
            end = found.end()
        text.replace_with(*parts, soup.new_string(text[end:]))


def _mathml(found: re.Match) -> str:
    from latex2mathml.converter import convert

    block, inline = found.groups()
    source = block or inline
    if len(source) > LONGEST:
        return html.escape(found.group())
    try:
        written = convert(source.strip(), display="block" if block else "inline")
    except Exception:  # whatever it stumbles over; RecursionError among them
        return html.escape(found.group())
    return written.replace("<math ", f'<math alttext="{html.escape(source.strip())}" ', 1)


if __name__ == "__main__":
    sys.exit(main())
