"""The page on strategies of one's own: its code runs with the embedded policy (its bound: test_stopping.py)."""

import ast
import asyncio
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"```python\n(.+?)```", (DOCS / "your_own_strategy.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def page(blocks):
    """The names that the page's first block defines."""
    names = {}
    exec(compile(blocks[0], "your_own_strategy.md", "exec"), names)
    return names


@pytest.mark.engine
def test_the_page_runs(blocks, page, capsys):
    asyncio.run(eval(in_loop(blocks[1]), page))
    said = capsys.readouterr().out
    assert said.strip() in (DOCS / "your_own_strategy.md").read_text(), "the page shows what it prints"


def in_loop(block):
    return compile(block, "your_own_strategy.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.engine
def test_the_strategy_runs_beside_the_others(blocks, page, tmp_path, monkeypatch, capsys):
    """With the store; the looser bound stops earlier."""
    monkeypatch.chdir(tmp_path)
    page["policy"] = page["tts"].open_policy("policy-xs", engine="transformers")
    asyncio.run(eval(in_loop(blocks[2]), page))
    assert page["drawn"]["20 %"] < page["drawn"]["5 %"] < 64
    assert "difference [" in capsys.readouterr().out
    assert list((tmp_path / "store").rglob("*"))


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == project["version"]
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_download_nothing():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    assert {hook["language"] for hook in hooks[0]["hooks"]} == {"system"}


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/your_own_strategy.md", "figures/ledger.md"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text().replace("]\n(", "]("))
    assert links
    for link in links:
        assert re.match("https?:", link) or ((ROOT / page).parent / link).exists(), link
