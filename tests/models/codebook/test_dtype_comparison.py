import torch
from safetensors.torch import save_file

from mmf_flava.config.model import CodebookConfig
from mmf_flava.models.codebook.dalle_encoder import DalleEncoder
from mmf_flava.models.codebook.dtype_comparison import compare_dtypes


def test_compare_dtypes_returns_every_dtype_and_layout(tmp_path):
    torch.manual_seed(0)
    save_file(DalleEncoder(64, 8).state_dict(), tmp_path / "model.safetensors")
    config = CodebookConfig("dvae", str(tmp_path), 64, 8)
    results = list(compare_dtypes(config, torch.rand(2, 3, 32, 32)))
    assert [(result.dtype, result.channels_last) for result in results] == [
        (dtype, layout) for dtype in ("fp32", "bf16", "fp16") for layout in (False, True)
    ]
    assert results[0].changed == 0 and all(0 <= result.changed < 0.3 and result.seconds > 0 for result in results)
