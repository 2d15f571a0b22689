"""Pages beside the code agree with it, and the code in them is run: a vote that stops early, on dice and a policy."""

import ast
import asyncio
import re
import tomllib
from pathlib import Path

import numpy as np
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


def first_stop(decided, keys, error):
    return next((n for n in range(1, len(keys) + 1) if decided(keys[:n], error)), None)


def test_by_hand(page):
    """All alike: 2^(n+1) / (n+1) * (1 - 2^-(n+1)) after n later wins, at least 2 / error: 40 at 5 %, 200 at 1 %."""
    decided = page["decided"]
    assert first_stop(decided, ["a"] * 64, 0.05) == 9  # 511 / 9 = 56.8; one before 255 / 8 = 31.9
    assert first_stop(decided, ["a"] * 64, 0.01) == 12  # 4095 / 12 = 341; one before 2047 / 11 = 186
    assert first_stop(decided, ["a", "b"] * 100, 0.05) is None
    assert first_stop(decided, [None] * 100, 0.05) is None
    assert not decided([], 0.05)


def test_a_wrong_answer_is_seldom_decided(page):
    """The worst case, two answers that are hardly apart, looked at after every draw: at most 10 % are wrong."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(300):
        keys = ["m" if draw < 0.505 else "a" for draw in rng.random(60)]
        stop = first_stop(page["decided"], keys, 0.1)
        wrong += stop is not None and keys[:stop].count("a") > stop / 2
    assert wrong <= 45  # 30, and three standard deviations


def test_it_stops_early_where_one_answer_leads(page):
    rng = np.random.default_rng(0)
    stops = [first_stop(page["decided"], list(rng.choice(list("mab"), 64, p=[0.8, 0.1, 0.1])), 0.05) for _ in range(50)]
    assert sum(stop is not None and stop < 40 for stop in stops) >= 40


@pytest.mark.engine
def test_the_page_runs(blocks, page, capsys):
    code = compile(blocks[1], "your_own_strategy.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    asyncio.run(eval(code, page))
    found = re.search(r"after (\d+) of 64 samples", capsys.readouterr().out)
    assert 1 <= int(found.group(1)) <= 64


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
