"""Torch's options for a run, on a faked GPU."""

import os

import pytest
import torch
from mmf.common.registry import registry

from mmf_flava.config.run import TrainingConfig
from mmf_flava.training import device
from mmf_flava.training.device import log_unused_gpus, prepare_device


@pytest.fixture
def messages(monkeypatch):
    """The log of a run whose options of torch and environment are restored at the end."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    messages: list[str] = []
    monkeypatch.setattr(device.mmf_api, "log", messages.append)
    previous = registry.get("current_device", no_warning=True)
    yield messages
    registry.register("current_device", previous)
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.fixture
def gpus(monkeypatch):
    """Fake four GPUs, of which number 2 is the current one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)


@pytest.mark.parametrize("enabled", [False, True])
def test_tf32_is_a_choice_and_logged(enabled, messages, gpus):
    assert prepare_device("cuda", TrainingConfig(tf32=enabled)) == torch.device("cuda", 2)
    assert registry.get("current_device") == torch.device("cuda", 2)
    assert torch.backends.cudnn.allow_tf32 is enabled
    assert torch.backends.cuda.matmul.allow_tf32 is enabled
    assert torch.get_float32_matmul_precision() == ("high" if enabled else "highest")
    assert f"on cuda:2 {'use' if enabled else 'do not use'} TF32 (training.tf32)" in messages[0]


def test_attention_of_cudnn_is_off(messages, gpus):
    assert torch.backends.cuda.cudnn_sdp_enabled()
    prepare_device("cuda", TrainingConfig())
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.mem_efficient_sdp_enabled()


def test_benchmark_of_cudnn_is_a_choice(messages, gpus):
    for training in (TrainingConfig(), TrainingConfig(cudnn_benchmark=True), TrainingConfig(deterministic=True)):
        prepare_device("cuda", training)
        assert torch.backends.cudnn.benchmark is training.cudnn_benchmark
    prepare_device("cuda", TrainingConfig(cudnn_benchmark=True, deterministic=True))
    assert not torch.backends.cudnn.benchmark


def test_deterministic_algorithms(messages, gpus):
    prepare_device("cuda", TrainingConfig())
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    prepare_device("cuda", TrainingConfig(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert [message.rpartition("; ")[2] for message in messages] == [
        "algorithms are not deterministic.",
        "algorithms are deterministic.",
    ]


def test_cpu_on_a_machine_with_gpus(messages, gpus):
    assert prepare_device("cpu", TrainingConfig()) == torch.device("cpu")
    assert torch.backends.cuda.cudnn_sdp_enabled() and not messages


def test_unused_gpus_are_logged(messages, gpus, monkeypatch):
    log_unused_gpus("cuda:2", torch.device("cuda", 2))
    log_unused_gpus("cpu", torch.device("cpu"))
    assert not messages
    log_unused_gpus("cuda", torch.device("cuda", 2))
    assert messages == ["Training on 1 of 4 GPUs. To use all of them, set training.sharding=ddp or fsdp."]
    monkeypatch.setattr(device, "world_size", lambda: 4)
    log_unused_gpus("cuda", torch.device("cuda", 2))
    assert len(messages) == 1
