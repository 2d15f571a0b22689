"""Notebooks one after the other in one process, without kernels: python tests/walk.py OUTPUT NOTEBOOK... < PARAMETERS.

PARAMETERS is a JSON object that changes the parameters cells. OUTPUT gets a JSON object: notebook -> what each code
cell showed, [printed, warned, the plain form of what was displayed, its HTML].
"""

import ast
import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output


def parameters_of(source: str, changes: dict) -> str:
    """A parameters cell with these changes of it."""
    known = [line.target.id for line in ast.parse(source).body]
    return "\n".join([source, *(f"{name} = {value!r}" for name, value in changes.items() if name in known)])


def walk(notebook: Path, changes: dict) -> list[list[str]]:
    """Run a notebook's cells; raises the first error."""
    shell, shown = InteractiveShell.instance(), []  # one for all: matplotlib remembers it
    shell.reset(new_session=False)
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            if "parameters" in cell["metadata"].get("tags", []):
                source = parameters_of(source, changes)
            with capture_output() as seen:
                done = shell.run_cell(source)
                done.raise_error()
            last = shell.display_formatter.format(done.result)[0] if done.result is not None else {}
            data = [*(output.data for output in seen.outputs), last]
            plain, html = ("\n".join(one.get(f"text/{form}", "") for one in data) for form in ("plain", "html"))
            shown.append([seen.stdout, seen.stderr, plain, html])
    plt.close("all")
    return shown


if __name__ == "__main__":
    given = json.load(sys.stdin)
    found = {Path(name).stem[:2]: walk(Path(name), given) for name in sys.argv[2:]}
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
