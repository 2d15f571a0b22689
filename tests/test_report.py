"""The report: one page of small notebooks, read back as a browser would."""

import copy
import json
import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from toys import make_notebook, make_repository, run

from tts.companion import report
from tts.plots.interactive import PLOTLY

PNG = "iVBORw0KGgo="
FIRST = """# One

See [two](02_two.ipynb), [its end](02_two.ipynb#End), [below](#End), [the web](https://arxiv.org) and
[code](../tts/x.py).

For $p^2 < 3$ it costs 5 \\$ or \\$6; `$x$` is code.

## End

$$ \\frac{1}{2} $$
"""


def notebook(*outputs, source="pass", text="# Two\n\n## End"):
    cells = [new_markdown_cell(text), new_code_cell(source, outputs=list(outputs), execution_count=1)]
    return new_notebook(cells=cells)


def shown(**data):
    return new_output("display_data", {name.replace("_", "/"): value for name, value in data.items()})


def page(**chapters):
    return BeautifulSoup(report.one_page({f"{name}.ipynb": nodes for name, nodes in chapters.items()}), "html.parser")


@pytest.fixture(scope="module")
def both():
    hostile = shown(text_html="<script>alert(1)</script><iframe src='http://x'></iframe><b>$\\frac{$ and $7$</b>")
    return page(**{"01_one": notebook(hostile, text=FIRST), "02_two": notebook(shown(text_plain="$y$"))})


def test_contents_lead_to_every_chapter_and_heading(both):
    links = {link.text: link["href"] for link in both.nav("a") if link.text != "End"}
    assert links == {"One": "#01_one", "Two": "#02_two"}
    ends = [link["href"] for link in both.nav("a") if link.text == "End"]
    assert ends == ["#01_one--End", "#02_two--End"]  # the same heading twice
    for link in both("a", href=re.compile("^#")):
        assert len(both.find_all(id=link["href"][1:])) == 1


def test_links_stay_in_the_page(both):
    links = {link.text: link["href"] for link in both.main("a")}
    assert links == {
        "two": "#02_two",
        "its end": "#02_two--End",
        "below": "#01_one--End",
        "the web": "https://arxiv.org",
    }
    assert both.main.find("span", title="../tts/x.py in the repository").text == "code"


def test_nothing_runs_and_nothing_is_loaded(both):
    assert both.find("meta", {"http-equiv": "Content-Security-Policy"})["content"].startswith("default-src 'none'")
    assert not both(["script", "iframe", "link", "object"])
    assert all(image["src"].startswith("data:") for image in both("img"))
    assert both.find("meta", {"name": "viewport"})


def test_mathematics_is_set_where_it_can_be(both):
    """Not in code, not a price, not what is no TeX; <, which Markdown escapes, comes through."""
    found = [(tag["alttext"], tag["display"]) for tag in both("math")]
    assert found == [("p^2 < 3", "inline"), (r"\frac{1}{2}", "block"), ("7", "inline")]
    text = both.main.get_text()
    assert "$6" in text
    assert "$x$" in text
    assert "$\\frac{$ and" in text
    assert "$y$" in text  # plain text, in <pre>


@pytest.mark.parametrize("source", ["{" * 1500, r"\left(", "<script>", "a" * 100_000])
def test_text_of_a_model_breaks_nothing(source):
    soup = page(**{"01_one": notebook(new_output("display_data", {"text/markdown": f"so $ {source} $, ${source}$"}))})
    assert not soup("script")


def test_figures_have_their_captions_and_alt_texts(tmp_path):
    (tmp_path / "05_votes.json").write_text(json.dumps({"alt": 'a "chart"', "caption": "votes <N"}))
    nodes = notebook(shown(image_png=PNG), shown(image_png=PNG), source='save(fig, "05_votes")')
    soup = page(**{"01_one": report.described(nodes, [tmp_path])})
    assert [image["alt"] for image in soup("img")] == ['a "chart"', report.NO_WORDS]
    assert soup.figcaption.text == "votes <N"


@pytest.mark.parametrize("name", ["10_trees", "none"])
def test_an_interactive_view_is_its_picture(tmp_path, name):
    """Also where nbconvert alone makes the page of it, without the words of a figure."""
    (tmp_path / "10_trees.json").write_text(json.dumps({"alt": "two trees", "caption": "Trees."}))
    data = {PLOTLY: {"data": [{"hovertext": ["<script>step</script>"]}]}, "image/png": PNG, "text/plain": "a view"}
    nodes = notebook(new_output("display_data", data), source=f'save(fig, "{name}")')
    plain = page(**{"01_one": copy.deepcopy(nodes)})
    described = page(**{"01_one": report.described(nodes, [tmp_path])})
    for soup in (plain, described):
        assert [image["src"] for image in soup("img")] == [f"data:image/png;base64,{PNG}"]
        assert "step" not in soup.main.get_text()
    assert described.img["alt"] == ("two trees" if name == "10_trees" else report.NO_WORDS)


def test_a_run_leaves_a_report(tmp_path):
    """Of the committed notebooks; those of other parameters are in the build folder, once they were run."""
    repository = make_repository(tmp_path / "a repo")
    path = make_notebook(repository, "01_one")
    (repository / "notebooks" / "LAST.md").write_text("# What is left out")
    done = run(repository, program=("-m", "tts.companion.report"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "without outputs: 01_one; execute them with ./run_all.sh --only 01" in done.stdout
    text = (repository / report.PAGE).read_text()
    assert report.NO_OUTPUT in text
    assert '<a href="#LAST">What is left out</a>' in text

    done = run(repository, "--profile", "smoke", program=("-m", "tts.companion.report"))
    assert done.returncode == 2
    assert done.stderr == (
        "run_all: build/smoke/01_one.ipynb is not there: "
        "execute the notebooks with these options first, without `report`\n"
    )
    built = repository / "build" / "smoke" / path.name
    built.parent.mkdir(parents=True)
    nbformat.write(notebook(shown(text_plain="of the smoke run")), built)
    done = run(repository, "--profile", "smoke", program=("-m", "tts.companion.report"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "of the smoke run" in (repository / report.PAGE).read_text()
