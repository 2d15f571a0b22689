"""What a user reads when the hub refuses: a small server on this machine takes its place."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from toys import ROOT

from tts.models.files import SMALL
from tts.models.hub import SECOND_COPIES

COMMIT = "a" * 40
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "consolidated.safetensors": b"the same weights",
    "original/consolidated.00.pth": b"and again",
}
# repository -> (status, headers) of every answer about it
REFUSALS = {
    "them/gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model them/gated is restricted"}),
    "them/gated-401": (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "You must be authenticated"}),
    "them/wrong-token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "them/no-access": (403, {"X-Error-Message": "Token lacks the right to read"}),
    "them/missing": (404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}),
    "them/missing-401": (401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}),
    "them/old": (404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id: main"}),
}
BUSY = "them/busy"


class Hub(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self):  # noqa: N802
        path = self.path.partition("?")[0]
        name = "/".join(path.removeprefix("/api/models").strip("/").split("/")[:2])
        if self.command == "GET" and "/resolve/" in path:
            self.asked.append(path.partition(f"/resolve/{COMMIT}/")[2])
        if name == BUSY:
            self._answer(429, b"", {"X-Error-Message": "Too many requests"})
        elif name in REFUSALS:
            status, headers = REFUSALS[name]
            self._answer(status, b"", headers)
        elif path.startswith("/api/models/"):
            listed = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in FILES]}
            tree = [{"type": "file", "path": file, "size": len(data), "oid": file} for file, data in FILES.items()]
            self._answer(200, json.dumps(tree if "/tree/" in path else listed).encode(), {})
        else:
            file = path.partition(f"/resolve/{COMMIT}/")[2]
            data = FILES.get(file)
            found = {"X-Repo-Commit": COMMIT, "ETag": f'"{file.replace("/", "-")}"'}
            self._answer(200 if data else 404, data or b"", found if data else {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status, body, headers):
        self.send_response(status)
        for header, value in {"Content-Length": str(len(body)), "Content-Type": "application/json", **headers}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def python(code, tmp_path, endpoint, **environment):
    """What code prints in a process of its own: huggingface_hub reads its environment once, when it is imported."""
    clean = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(ROOT)}
    clean |= {"HF_ENDPOINT": endpoint, "no_proxy": "127.0.0.1"} | environment
    run = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return run.stdout.rstrip("\n")


ASK = """
from tts.errors import InputError
from tts.models import hub
def resolve(name):
    hub.resolve(name, "main", parameter="prm_model")
def download(name):
    hub.download(name, "{commit}", ["*.safetensors"], parameter="prm_model")
for name in {names}:
    for ask in ({asks}):
        try:
            ask(name)
            print("no error")
        except InputError as error:
            print(error)
"""


@pytest.mark.slow  # it imports huggingface_hub, in a process
def test_each_refusal_has_its_own_line(hub, tmp_path):
    code = ASK.format(names=list(REFUSALS), asks="resolve, download", commit=COMMIT)
    gated = "is gated: accept its licence at {page}, then set HF_TOKEN or log in"
    missing = "is not on the hub, or private: check the name ({page})"
    expected = {
        "them/gated": [gated, "is gated, and your token has no access yet: accept its licence at {page}"],
        "them/gated-401": [gated, "is gated, and your token has no access yet: accept its licence at {page}"],
        "them/wrong-token": [missing, "was refused, because your token is wrong or has expired: set HF_TOKEN anew"],
        "them/no-access": ["is not yours to read (Token lacks the right to read): give HF_TOKEN the right"] * 2,
        "them/missing": [missing] * 2,
        "them/missing-401": [missing, "was refused, because your token is wrong or has expired"],
        "them/old": ["has no revision 'main': check `revision`"] * 2,
    }
    for number, environment in enumerate(({}, {"HF_TOKEN": "hf_mine"})):
        lines = python(code, tmp_path, hub, **environment).splitlines()
        assert len(lines) == 2 * len(REFUSALS), lines
        for i, (name, wanted) in enumerate(expected.items()):
            for line in lines[2 * i : 2 * i + 2]:  # of resolve, of download
                line = line.replace(COMMIT, "main")
                assert line.startswith(f"prm_model={name!r} " + wanted[number].format(page=f"{hub}/{name}")), line
                assert "check the network" not in line


@pytest.mark.slow
def test_too_many_requests(hub, tmp_path):
    """Only what resolves a name: downloads are tried again for half a minute first, by the hub's own library."""
    code = ASK.format(names=[BUSY], asks="resolve,", commit=COMMIT)
    wanted = "was refused, too many requests: wait some minutes, or set HF_TOKEN, which allows more of them"
    assert python(code, tmp_path, hub) == f"prm_model={BUSY!r} {wanted}"


@pytest.mark.slow
def test_without_an_answer_the_network_is_blamed(tmp_path):
    line = python(ASK.format(names=["them/any"], asks="resolve,", commit=COMMIT), tmp_path, "http://127.0.0.1:9")
    assert line.startswith("prm_model='them/any' can't be reached on the hub and is not in the local cache: go online")


@pytest.mark.slow
def test_no_second_copy_of_the_weights_is_downloaded(hub, tmp_path):
    Hub.asked.clear()
    patterns = (*SMALL, "*.safetensors")
    code = f"from tts.models.hub import download\nprint(download('us/ours', {COMMIT!r}, {patterns}, parameter='p'))"
    folder = python(code, tmp_path, hub)
    assert folder.endswith(COMMIT)
    assert {file for file in Hub.asked if file} == {"config.json", "model.safetensors"}, "and with them no other"
    assert set(SECOND_COPIES) == {"original/*", "consolidated*.safetensors"}
