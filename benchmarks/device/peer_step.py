"""Parts ``huggingface`` and ``torchmultimodal``: their training step, with the batches of ``step``, *same inputs*.

The parts ``huggingface_compiled`` and ``torchmultimodal_compiled`` compile the entire model, which takes minutes.
"""

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.util import find_spec
from typing import Any
from unittest import mock

from peers import PEERS

from device.context import Context
from device.models import TINY, build_batch
from device.training_step import StepBenchmark

KINDS = ("pair", "image", "text")
PADDED, CAPTION = 77, 16  # tokens of a caption's batch, and of the caption
PACKAGES = {"huggingface": "transformers", "torchmultimodal": "torchmultimodal"}


def run(context: Context) -> None:
    """Report the steps of the implementation that the part is named after."""
    peer, _, compiled = context.part.partition("_")
    if find_spec(PACKAGES[peer]) is None:
        context.skip("all steps", f"{PACKAGES[peer]} is not installed")
        return
    benchmark, size = StepBenchmark(context), context.pick(64, 2)
    with shrink(peer) if context.tiny else nullcontext():
        for kind in context.pick(KINDS, KINDS[-1:]) if compiled else KINDS:
            batch = build_batch(context, size, PADDED, CAPTION if kind == "pair" else None)
            eager, build = (partial(PEERS[peer], kind, batch, False, mode) for mode in (False, bool(compiled)))
            if compiled:
                benchmark.count_flop(kind, eager)
            file = f"profile_{context.part}.txt" if kind == "pair" else None
            benchmark.measure(f"{'compiled' if compiled else 'eager'}, {kind}", kind, build, size, file)


def shrink(peer: str) -> AbstractContextManager[Any]:
    """Return a context in which the implementation builds tiny models."""
    return {"huggingface": shrink_hugging_face, "torchmultimodal": shrink_torchmultimodal}[peer]()


def shrink_hugging_face() -> AbstractContextManager[Any]:
    from transformers import FlavaConfig, FlavaForPreTraining

    width = TINY["hidden_size"]
    sizes = {"num_hidden_layers": 1, "hidden_size": width, "intermediate_size": TINY["mlp_size"]}
    sizes["num_attention_heads"] = TINY["num_heads"]
    sections: dict[str, Any] = {f"{name}_config": dict(sizes) for name in ("image", "text", "multimodal")}
    sections["image_codebook_config"] = {"hidden_size": 8}
    config = FlavaConfig(hidden_size=width, projection_dim=width, **sections)
    build = FlavaForPreTraining.__init__
    # the class, because transformers replaces its own names when it imports lazily
    return mock.patch.object(FlavaForPreTraining, "__init__", lambda self, _: build(self, config))


def shrink_torchmultimodal() -> AbstractContextManager[Any]:
    from torchmultimodal.models.flava import model as flava

    layers = {f"{name}_num_hidden_layers": 1 for name in ("image", "text", "multimodal")}
    name = "flava_model_for_pretraining"
    return mock.patch.object(flava, name, partial(getattr(flava, name), **layers))
