"""Which machine this is: GPUs that are hidden, CPUs that vLLM can use, temporary folders that sockets fit into."""

import tempfile
from pathlib import Path

import pytest

from tts.models.host import runtime_directory, temporary_directory
from tts.models.open import has_gpu


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


def test_sockets_fit_whatever_the_temporary_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("TTS_ENGINES", raising=False)
    deep = tmp_path / ("a" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert temporary_directory() == Path("/tmp")
    assert len(str(runtime_directory())) < 60
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert temporary_directory() == Path("/var/tmp")
