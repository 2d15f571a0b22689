"""The store keeps what it was given: through other settings, torn lines, full disks and killed processes."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import tts.results.store
from tts.errors import InputError
from tts.results.store import Store, settings_hash

SETTINGS = {"policy": "abc", "temperature": 0.8, "prompt": {"date": "x", "system": ""}}


def record(*key, **fields):
    return {"key": list(key), **fields}


def test_read_back_in_order_of_key(tmp_path):
    table = Store(tmp_path).table("samples", SETTINGS)
    assert table.read() == {}
    table.append([record("b", 1, text="late"), record("b", 0, text="β\n\n")])
    table.append([record("a", 10), record("a", 9)])
    again = Store(tmp_path).table("samples", SETTINGS)
    assert list(again.read()) == [("a", 9), ("a", 10), ("b", 0), ("b", 1)]
    assert again.read()["b", 0]["text"] == "β\n\n"


def test_reads_back_as_a_data_set(tmp_path):
    table = Store(tmp_path).table("samples", SETTINGS)
    table.append([record("b", 0, text="two", logprob=-1.5), record("a", 0, text="one", logprob=None)])
    data = table.dataset()
    assert data["key"][:] == ["a/0", "b/0"]
    assert data["text"][:] == ["one", "two"]
    assert data["logprob"][:] == [None, -1.5]


def test_opening_writes_nothing(tmp_path):
    Store(tmp_path / "new").table("samples", SETTINGS).read()
    assert not (tmp_path / "new").exists()


def test_a_changed_setting_misses_and_a_reordered_one_does_not(tmp_path):
    store = Store(tmp_path)
    store.table("samples", SETTINGS).append([record("a", 0)])
    reordered = {"prompt": {"system": "", "date": "x"}, "temperature": 0.8, "policy": "abc"}
    assert len(store.table("samples", reordered).read()) == 1
    for change in ({"policy": "abd"}, {"temperature": 0.7}, {"prompt": {"date": "y", "system": ""}}, {"seed": 0}):
        assert store.table("samples", SETTINGS | change).read() == {}
    assert store.table("scores", SETTINGS).read() == {}


def test_settings_hash_is_stable_for_ever():
    assert settings_hash({"a": 1, "b": [0.8, None, "x"]}) == settings_hash({"b": [0.8, None, "x"], "a": 1})
    assert settings_hash({"a": 1}) == "015abd7f5cc57a2d"


def test_settings_are_there_to_read(tmp_path):
    table = Store(tmp_path).table("samples", SETTINGS)
    table.append([record("a", 0)])
    assert json.loads((table.folder / "settings.json").read_text()) == SETTINGS


def test_a_success_takes_the_place_of_a_failure_and_nothing_is_removed(tmp_path):
    table = Store(tmp_path).table("samples", SETTINGS)
    table.append([record("a", 0, error="engine died")])
    assert table.read()["a", 0]["error"] == "engine died"
    table.append([record("a", 0, text="first")])
    table.append([record("a", 0, text="second")])
    assert table.read()["a", 0]["text"] == "first"
    assert len(table.path.read_text().splitlines()) == 3


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_tail_is_left_out_then_cut_off(tmp_path, cut):
    table = Store(tmp_path).table("samples", SETTINGS)
    table.append([record("a", 0, text="kept"), record("a", 1, text="torn")])
    whole = table.path.read_bytes()
    table.path.write_bytes(whole[:-cut])
    assert list(table.read()) == [("a", 0)]
    assert table.path.read_bytes() == whole[:-cut]  # reading changes nothing
    table.append([record("a", 1, text="torn")])
    assert table.path.read_bytes() == whole


def test_a_file_that_is_one_torn_line(tmp_path):
    table = Store(tmp_path).table("samples", SETTINGS)
    table.append([record("a", 0, text="x" * 200_000)])
    table.path.write_bytes(table.path.read_bytes()[:-1])
    assert table.read() == {}
    table.append([record("b", 0)])
    assert list(table.read()) == [("b", 0)]


def test_damage_inside_is_reported_not_skipped(tmp_path):
    table = Store(tmp_path).table("samples", SETTINGS)
    table.append([record("a", 0), record("a", 1)])
    lines = table.path.read_text().splitlines()
    table.path.write_text(lines[0][:-4] + "\n" + lines[1] + "\n")
    with pytest.raises(InputError, match=r"line 1 is damaged: remove that line"):
        table.read()


@pytest.mark.parametrize("content", ['{"schema": 99}', "{}", "not json"])
def test_another_schema_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / "schema.json").write_text(content)
    with pytest.raises(InputError, match=r"store: .* has schema .* name another folder in `store`"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["schema.json"]
    assert (tmp_path / "schema.json").read_text() == content


def test_a_full_disk_leaves_no_half_record(tmp_path, monkeypatch):
    table = Store(tmp_path).table("samples", SETTINGS)
    table.append([record("a", 0)])
    before = table.path.read_bytes()

    def full(file, data):
        file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tts.results.store, "_write_all", full)
    with pytest.raises(InputError, match="No space left on device.*free some space"):
        table.append([record("a", 1)])
    assert table.path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system, which root alone may do")
def test_a_really_full_disk(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        table = Store(tmp_path / "store").table("samples", SETTINGS)
        table.append([record("a", 0, text="x" * 10_000)])
        before = table.path.read_bytes()
        with pytest.raises(InputError, match="No space left on device"):
            table.append([record("a", 1, text="x" * 100_000)])
        assert table.path.read_bytes() == before
        assert list(table.read()) == [("a", 0)]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


APPENDER = """
import sys
from tts.results.store import Store
folder, name = sys.argv[1:]
table = Store(folder).table("samples", {})
for i in range(100):
    table.append([{"key": [name, i], "text": "x" * (i * 37 % 1000)}, {"key": [name, 1000 + i]}])
"""


def test_several_processes_append_whole_records(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", APPENDER, tmp_path, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    records = Store(tmp_path).table("samples", {}).read()
    assert len(records) == 600
    assert all(len(records[name, i]["text"]) == i * 37 % 1000 for name in "abc" for i in range(100))


# A real run of tts.results.collect.sample with a scripted policy that notes each completion that it makes.
RUN = """
import asyncio, hashlib, sys
from tts.policy import Completion, Sampling
from tts.problems import Problem
from tts.results.collect import sample
from tts.results.store import Store

class Scripted:
    name, fingerprint, context = "scripted", "f00d", 1000
    prompt_settings, provenance = {}, {"engine": "scripted"}
    def prompt(self, problem):
        return (1, 2)
    async def sample(self, prefix, sampling, *, stop=None):
        await asyncio.sleep(0.01)
        digest = hashlib.sha256(str(sampling.seed).encode()).hexdigest()
        return Completion(tuple(range(int(digest[:2], 16) % 9 + 1)), f"answer {digest}", -1.5, "end")

problems = [Problem(id=f"p{i}", text=f"{i}?", answer=str(i)) for i in range(60)]
asyncio.run(sample(problems, Scripted(), Store(sys.argv[1]), n=4, sampling=Sampling(max_tokens=16), concurrency=4))
"""


@pytest.mark.slow
def test_killed_at_random_moments_the_table_is_that_of_an_undisturbed_run(tmp_path):
    def start(folder):
        return subprocess.Popen([sys.executable, "-c", RUN, folder], stderr=subprocess.DEVNULL)

    def size(folder):
        return sum(path.stat().st_size for path in folder.glob("samples/*/records.jsonl"))

    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    assert start(undisturbed).wait() == 0

    rng = random.Random(7)
    sizes = [0]
    while True:
        run = start(disturbed)
        # Kill it when it has begun to write, so that every kill falls into the middle of the work.
        while run.poll() is None and size(disturbed) <= sizes[-1]:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.04))
        if run.poll() is not None:
            break
        run.send_signal(signal.SIGKILL)
        run.wait()
        sizes.append(size(disturbed))
    assert len(sizes) > 4
    assert sizes == sorted(set(sizes))  # each run went on where the killed one had stopped
    assert start(disturbed).wait() == 0

    assert _final(disturbed) == _final(undisturbed)
    lines = [json.loads(line)["key"] for line in _records(disturbed).read_text().splitlines()]
    assert len(lines) == len({tuple(key) for key in lines}) == 60 * 4  # no stored sample was made twice


def _records(folder):
    return next(folder.glob("samples/*/records.jsonl"))


def _final(folder):
    """The table as a reader gets it, as bytes."""
    settings = json.loads((_records(folder).parent / "settings.json").read_text())
    return json.dumps(list(Store(folder).table("samples", settings).read().values())).encode()
