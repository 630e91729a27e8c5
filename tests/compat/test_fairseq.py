"""fairseq can be imported, and its FP16Optimizer works on the CPU."""

import dataclasses

import torch
from omegaconf import OmegaConf
from torch import nn


def test_fp16_optimizer_updates_weights():
    from fairseq.dataclass.configs import FairseqConfig
    from fairseq.optim.fp16_optimizer import FP16Optimizer

    config = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(FairseqConfig)))
    config.common.fp16 = config.common.fp16_no_flatten_grads = True
    config.distributed_training.distributed_world_size = 1
    config.optimization.lr = [0.01]
    adam = {"adam_betas": "(0.9, 0.98)", "adam_eps": 1e-6, "weight_decay": 0.0, "use_old_adam": True}
    config.optimizer = {"_name": "adam", "fp16_adam_stats": False, "tpu": False, "lr": [0.01], **adam}
    torch.manual_seed(0)
    model = nn.Linear(4, 2).half()
    before = model.weight.detach().clone()
    optimizer = FP16Optimizer.build_optimizer(config, list(model.parameters()))
    loss = model(torch.ones(3, 4).half()).float().square().sum()
    optimizer.backward(loss)
    assert optimizer.clip_grad_norm(1.0).isfinite()
    optimizer.step()
    assert model.weight.dtype is torch.float16
    # Adam's first step changes every weight by the learning rate
    torch.testing.assert_close((model.weight - before).abs(), torch.full((2, 4), 0.01).half(), rtol=0, atol=1e-3)


def test_only_dataclasses_of_fairseq_become_hashable():
    import fairseq.dataclass.configs

    assert fairseq.dataclass.configs.CommonConfig.__hash__ is object.__hash__

    @dataclasses.dataclass
    class Other:
        x: int = 0

    assert Other.__hash__ is None
