"""Exported encoders equal the model at other batch sizes than the example's. The code is that of docs/export.md."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmf_flava.errors import UserError
from mmf_flava.models.export import KINDS, export_encoder
from mmf_flava.models.flava import Flava
from tests.parity.batches import randomise

(EXAMPLE,) = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/export.md").read_text(), re.DOTALL)
TOKENS = 6


def batch(kind, size):
    generator = torch.Generator().manual_seed(size)
    lengths = torch.randint(2, TOKENS + 1, (size, 1), generator=generator)
    inputs = {
        "image": torch.randn(size, 3, 4, 4, generator=generator),
        "input_ids": torch.randint(1, 11, (size, TOKENS), generator=generator),
        "input_mask": torch.arange(TOKENS) < lengths,
    }
    return {name: inputs[name] for name in KINDS[kind][1]}


@pytest.mark.parametrize("kind", KINDS)
def test_example_of_the_documentation_equals_the_model(tiny, tmp_path, monkeypatch, kind):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = Flava(tiny)
    randomise(model)
    save_file(dict(model.state_dict()), tmp_path / "weights.safetensors")
    monkeypatch.chdir(tmp_path)
    code = EXAMPLE.replace("facebook/flava-full", "weights.safetensors").replace('"image"', f'"{kind}"')
    exec(code.replace('.safetensors"', '.safetensors", num_heads=2'), {})
    loaded = torch.export.load("image.pt2").module()
    session = onnxruntime.InferenceSession("image.onnx")
    assert [node.name for node in session.get_inputs()] == list(KINDS[kind][1])
    for size in (1, 3, 8):
        inputs = batch(kind, size)
        with torch.no_grad():
            expected = getattr(model.eval(), f"encode_{kind}")(*inputs.values())
            assert (loaded(*inputs.values()) - expected).abs().max() < 1e-5
        (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        assert found.shape[0] == size and np.abs(found - expected.numpy()).max() < 1e-5


def test_unknown_kind_raises(tiny):
    with pytest.raises(UserError, match="'images' is not one of image, text, multimodal"):
        export_encoder(Flava(tiny), "images")
