"""Which machine this is: GPUs that are hidden, users without a home, temporary folders that sockets fit into."""

import os
import tempfile
from pathlib import Path

import pytest

from tts.companion.runner import device
from tts.errors import InputError
from tts.models.files import hash_directory
from tts.models.host import runtime_directory, temporary_directory
from tts.models.open import has_gpu, open_policy
from tts.problems import load_problems


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles", "none", " "])
def test_a_hidden_gpu_is_none(monkeypatch, tmp_path, hidden):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert has_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not has_gpu(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert has_gpu(tmp_path)


def test_without_device_files_there_is_no_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not has_gpu(tmp_path)


def test_the_record_names_the_gpus_of_this_job(monkeypatch, tmp_path):
    """Not every one that nvidia-smi lists; all of them where it can't be asked about the job's own."""
    asked = 'case "$*" in *--id=1,2) echo B; echo C ;; *--id=*) exit 6 ;; *) echo A; echo B; echo C ;; esac'
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{asked}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("tts.companion.runner.has_gpu", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device() == "A + B + C"
    for visible, named in (("1,2", "B + C"), ("MIG-1", "A + B + C")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert device() == named


def test_a_user_without_a_home(monkeypatch, tmp_path):
    """A user id without an account in a container: ~ stands for nothing, and a large model is hashed all the same."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # whose home expanduser looks up
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="problems: there is no file ~/mine.jsonl"):
        load_problems("~/mine.jsonl")
    with pytest.raises(InputError, match="policy_model='~/mine': there is no such directory"):
        open_policy("~/mine")
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(65 << 20)  # above this size the hash is remembered, where there is a home to remember it in
    assert hash_directory(tmp_path) == hash_directory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_sockets_fit_whatever_the_temporary_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("TTS_ENGINES", raising=False)
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert temporary_directory() == Path("/tmp")
    assert len(str(runtime_directory())) < 60
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert temporary_directory() == Path("/var/tmp")
