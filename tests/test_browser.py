"""JupyterLab as a reader uses it, in Chromium: change a parameter, run all, interrupt, change again, run again."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect, sync_playwright

from tts.plots.interactive import PLOTLY

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MINUTE = 60_000  # milliseconds; all of these limits are for a machine that is busy with something else
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"
LEFT = r" +\d+%\|.*\| +\d+/{total} \[\d\d:\d\d<\d\d:\d\d"  # a bar that says how much time is left

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="runs where Chromium is installed (Debian: apt install chromium)"),
]


@contextmanager
def jupyterlab(folder):
    """The address of a notebook, {}, in JupyterLab over a copy of the repository, folder/tts; no settings but its own.

    Each notebook is in a workspace of its own: another one would show those that were open before.
    """
    copy = folder / "tts"
    for name in ("tts", "notebooks", "figures"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "local", ".*"))
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))  # both need the network
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "TTS_"))}
    environment |= {"PYTHONPATH": str(copy), "IPYTHONDIR": str(folder / "ipython")}
    environment |= {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    environment |= {f"JUPYTERLAB_{kind}_DIR": str(folder / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={copy}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=copy, stdout=log, stderr=log)
        try:
            latest = time.monotonic() + 600
            while not (found := list((folder / "runtime").glob("jpserver-*.json"))):
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < latest, (folder / "log").read_text()
                time.sleep(0.2)
            about = json.loads(found[0].read_text())
            yield f"{about['url']}lab/workspaces/{{0}}/tree/notebooks/{{0}}.ipynb?token={about['token']}"
        finally:
            server.terminate()  # it ends its kernels
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


class Notebook:
    """A notebook that is open in a page."""

    def __init__(self, page, address, file):
        self.page, self.file = page, file
        page.set_default_timeout(5 * MINUTE)
        page.goto(address.format(file.stem))
        self.cells = page.locator(".jp-Notebook .jp-CodeCell")
        self.waiting = page.locator(".jp-InputPrompt", has_text="[*]")
        expect(self.cells.first).to_be_visible(timeout=5 * MINUTE)

    def change(self, **parameters):
        """Write other values into the lines of the parameters cell."""
        for name, value in parameters.items():
            self.cells.first.locator(".cm-line", has_text=re.compile(rf"^{name}:")).click(position={"x": 8, "y": 8})
            self.page.keyboard.press("Home")
            self.page.keyboard.press("Shift+End")
            self.page.keyboard.insert_text(f"{name}: {type(value).__name__} = {json.dumps(value)}")

    def choose(self, menu, item):
        """An item of the menu bar."""
        self.page.get_by_role("menubar").get_by_role("menuitem", name=menu, exact=True).click()
        self.page.get_by_role("menuitem", name=item).first.click()

    def run_all(self):
        """Start, without waiting for the end."""
        self.choose("Run", "Run All Cells")
        expect(self.waiting).not_to_have_count(0, timeout=MINUTE)

    def ended(self):
        """The saved notebook, once no cell runs or waits."""
        expect(self.waiting).to_have_count(0, timeout=30 * MINUTE)
        before = self.file.stat().st_mtime_ns
        self.choose("File", "Save Notebook")
        while self.file.stat().st_mtime_ns == before or not self.file.read_text().endswith("}\n"):  # half written
            self.page.wait_for_timeout(100)
        return nbformat.read(self.file, as_version=4)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return tmp_path_factory.mktemp("browser") / "tts"


@pytest.fixture(scope="module")
def opened(repository):
    """Open a notebook by its name, in a page of its own."""
    with jupyterlab(repository.parent) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[NO_NETWORK])
        try:
            yield lambda name: Notebook(browser.new_page(), address, repository / "notebooks" / name)
        finally:
            browser.close()


def outputs(notebook, kind):
    return [out for cell in notebook.cells for out in cell.get("outputs", []) if out.output_type == kind]


def said(notebook):
    return "".join(out.text for out in outputs(notebook, "stream") if out.name == "stderr")


def keys(store, kind, **settings):
    """The keys of all records of the tables of one kind with these settings."""
    found = []
    for file in store.glob(f"{kind}/*/records.jsonl"):
        of_table = json.loads((file.parent / "settings.json").read_text())
        if settings.items() <= of_table.items():
            found += [tuple(json.loads(line)["key"]) for line in file.read_text().splitlines()]
    return found


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_what_was_made(store, before, figures):
    """Nothing of before was made again, no record is there twice, and only figures/local/ has new figures."""
    for name, content in files(store).items():
        if name.name == "records.jsonl":
            assert content.startswith(before.get(name, b"")), f"{name} was rewritten"
            made = Counter(json.dumps(json.loads(line)["key"]) for line in content.splitlines())
            assert set(made.values()) == {1}, f"{name} has records twice"
    now, committed = files(figures), files(ROOT / "figures")
    assert {name: content for name, content in now.items() if name.parts[0] != "local"} == {
        name: content for name, content in committed.items() if name.parts[0] != "local"
    }
    assert {path.suffix for path in (figures / "local").iterdir()} >= {".png", ".svg", ".csv", ".json"}


def test_majority_voting(opened, repository):
    store, figures = repository / "store", repository / "figures"
    notebook = opened("01_majority_voting.ipynb")
    notebook.change(n_problems=60, n_max=16, greedy_models="policy-xs", concurrency=2)
    notebook.run_all()
    bar = notebook.page.get_by_text(re.compile("policy-xs: samples:" + LEFT.format(total=960)))
    expect(bar).to_be_visible(timeout=30 * MINUTE)
    notebook.choose("Kernel", "Interrupt Kernel")
    stopped = notebook.ended()
    assert len(outputs(stopped, "error")) == 1
    assert "policy-xs: interrupted; finished samples are stored, run it again to go on" in said(stopped)

    before = files(store)
    drawn = keys(store, "samples", temperature=0.8)
    problems = len(drawn) // 16 + 2
    assert 16 <= len(drawn) < 960
    notebook.change(n_problems=problems, n_max=32)
    notebook.run_all()
    done = notebook.ended()
    assert outputs(done, "error") == []
    assert f"policy-xs: {problems} samples stored, 0 to make" in said(done), "the greedy ones"
    assert f"policy-xs: {len(drawn)} samples stored, {problems * 32 - len(drawn):,} to make" in said(done)
    assert len(keys(store, "samples", temperature=0.8)) == problems * 32
    check_what_was_made(store, before, figures)


def test_beam_search(opened, repository):
    store, figures = repository / "store", repository / "figures"
    notebook = opened("04_beam_search.ipynb")
    notebook.change(n_problems=60, n_max=16, greedy_models="policy-xs", other_prms="", concurrency=2)
    notebook.change(verifier_problems=4, verifier_n_max=4)
    notebook.run_all()
    bar = notebook.page.get_by_text(re.compile("beam_search, n = 16: searches:" + LEFT.format(total=60)))
    expect(bar).to_be_visible(timeout=30 * MINUTE)
    notebook.choose("Kernel", "Interrupt Kernel")
    stopped = notebook.ended()
    assert len(outputs(stopped, "error")) == 1
    assert "beam_search, n = 16: interrupted; finished searches are stored, run it again to go on" in said(stopped)

    before = files(store)
    searched = len(keys(store, "searches", n=16))
    assert 1 <= searched < 60
    notebook.change(n_problems=searched + 2)
    notebook.run_all()
    done = notebook.ended()
    assert outputs(done, "error") == []
    assert f"beam_search, n = 4: {searched + 2} searches stored, 0 to make" in said(done)
    assert f"beam_search, n = 16: {searched} searches stored, 2 to make" in said(done)
    check_what_was_made(store, before, figures)


def test_a_tree_shows_its_steps_under_the_pointer(opened):
    """In the notebook as it is committed: the picture first, then plotly's in its place."""
    notebook = opened("06_dvts.ipynb")
    shown = [out.data for out in outputs(nbformat.read(notebook.file, as_version=4), "display_data")]
    [view] = [data[PLOTLY] for data in shown if PLOTLY in data]
    says = [html.unescape(text.replace("<br>", "")) for trace in view["data"] for text in trace.get("hovertext", [])]
    tree = notebook.page.locator(".jp-RenderedPlotly")
    tree.hover()
    steps = tree.locator(".scatterlayer path.point")
    expect(steps.last).to_be_visible(timeout=5 * MINUTE)
    assert steps.count() >= len(says), "rings are points too"
    steps.last.scroll_into_view_if_needed()
    box = steps.last.bounding_box()
    notebook.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    label = tree.locator(".hoverlayer .hovertext")
    expect(label).to_be_visible()
    assert label.text_content() in says
