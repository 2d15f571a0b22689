"""Hosts on one GPU: an idle one ends where its share is needed, a busy one stays, and one starts at a time."""

import asyncio
import json
import subprocess
import sys

import pytest

from tts.models import host, vllm

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


def spec(name, share, devices=""):
    return {"name": name, "settings": {"gpu_memory_utilization": share} if share else {}, "devices": devices}


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    """start(spec, clients): a process that holds a lock as a host does, and says that it has so many clients."""
    monkeypatch.setenv("TTS_ENGINES", str(tmp_path))
    tmp_path.chmod(0o700)
    processes, clients = {}, {}

    async def status(socket):
        return {"clients": clients[socket.stem]}

    def start(of, number):
        base = tmp_path / of["name"]
        base.with_suffix(".json").write_text(json.dumps(of))
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, base.with_suffix(".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"ready\n"
        base.with_suffix(".pid").write_text(str(process.pid))
        processes[of["name"]], clients[of["name"]] = process, number

    monkeypatch.setattr(host, "_ask_status", status)
    yield start
    for process in processes.values():
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def left(of):
    """The hosts that still run after there was made room for one."""
    asyncio.run(host.make_room(of))
    return {spec_file.stem for spec_file, _ in host.running_hosts()}


def test_an_idle_host_ends_where_its_share_is_needed(hosts):
    hosts(spec("idle", 0.4), 0)
    hosts(spec("busy", 0.4), 1)
    assert left(spec("small", 0.1)) == {"idle", "busy"}, "it fits beside them"
    assert left(spec("on a CPU", 0)) == {"idle", "busy"}
    assert left(spec("large", 0.5)) == {"busy"}
    assert left(spec("larger", 0.9)) == {"busy"}, "vLLM says what is missing"


def test_other_gpus_are_left_alone(hosts):
    hosts(spec("zero", 0.9, "0"), 0)
    hosts(spec("four", 0.9, "2,3,4,5"), 0)
    hosts(spec("cpu", 0), 0)
    assert left(spec("one", 0.9, "1")) == {"zero", "four", "cpu"}
    assert left(spec("three", 0.9, "3")) == {"zero", "cpu"}
    assert left(spec("any", 0.9, "")) == {"cpu"}, "without a number it may be any GPU"


def test_one_starts_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TTS_ENGINES", str(tmp_path))
    tmp_path.chmod(0o700)
    steps = []

    async def one(name, devices="", *, on_gpu=True):
        async with host.a_start(on_gpu=on_gpu, devices=devices):
            steps.append(f"{name} begins")
            await asyncio.sleep(0.01)
            steps.append(f"{name} ends")

    async def both(*devices, **settings):
        steps.clear()
        first, second = devices or ("", "")
        await asyncio.gather(one("a", first, **settings), one("b", second, **settings))

    asyncio.run(both())
    assert steps == ["a begins", "a ends", "b begins", "b ends"]
    for devices in (("0", "0"), ("0,1,2,3", "3"), ("0,1", "1,0"), ("0", ""), ("", "0")):
        asyncio.run(both(*devices))
        assert steps in (["a begins", "a ends", "b begins", "b ends"], ["b begins", "b ends", "a begins", "a ends"])
    for settings in ({"on_gpu": False}, {}):
        asyncio.run(both("0,1", "2", **settings))
        assert steps == ["a begins", "b begins", "a ends", "b ends"], "nothing that the other takes"


def test_a_start_says_how_long_it_takes():
    assert vllm._start_takes(spec("on a GPU", 0.4)) == "one to two minutes"
    assert vllm._start_takes(spec("on a CPU", 0)).startswith("about 15 s")
