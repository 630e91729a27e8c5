"""``training.precision: fp16``: fp16 weights with fp32 masters and a dynamic loss scale, by fairseq's FP16Optimizer."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.modules.layer_norm import Fp32LayerNorm
from fairseq.optim import FairseqOptimizer, FP16Optimizer
from torch import Tensor, nn

from mmf_flava.errors import UserError
from mmf_flava.training.engine import Masters

# the scale doubles after as many steps without an overflow; the same for any number of processes
FIRST_SCALE, WINDOW, SMALLEST_SCALE = 2.0**15, 2000, 1e-4
SCALER_STATE = ("loss_scale", "_iter", "_last_overflow_iter", "_last_rescale_iter", "_overflows_since_rescale")


def normalise_in_fp32(model: nn.Module) -> None:
    """Makes every LayerNorm compute in fp32 and answer in its input's dtype (the paper's one exception, §3.4).

    Its weights may be in fp16, as those that FSDP gathers are.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.LayerNorm:
                norm = Fp32LayerNorm(child.normalized_shape, child.eps)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(parent, name, norm)


def wake(model: nn.Module, std: float = 0.02) -> None:
    """Gives vectors that start as zeros, [CLS] and positions, the noise that other weights start with.

    A LayerNorm of zeros multiplies gradients by 1e6 (its epsilon is 1e-12), beyond what fp16 can hold: the loss scale
    would fall until they can, and the other gradients would be lost. All processes draw the same noise.
    """
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.requires_grad and weight.ndim > 1 and not weight.any():
            weight.data.copy_(std * torch.randn(weight.shape, generator=generator))


def halve(model: nn.Module) -> dict[nn.Parameter, nn.Parameter]:
    """Casts the model to fp16, and returns the fp32 master of each weight that is trained and was cast.

    LayerNorms stay in fp32, and so does the logit scale, whose exponential is a factor of all logits.
    """
    precise = {p for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters()}
    halved = {}
    for weight in model.parameters():
        if weight.requires_grad and weight not in precise and weight.ndim > 0:
            halved[weight] = nn.Parameter(weight.data)
            weight.data = weight.data.half()
    return halved


def masters(weights: list[nn.Parameter], halved: Masters) -> Masters:
    """The master of each weight; one that is in fp32 itself shares its memory with its master."""
    return {weight: halved[weight] if weight in halved else nn.Parameter(weight.data) for weight in weights}


class MasterOptimizer(FairseqOptimizer):
    """MMF's optimizer of the masters, as fairseq's FP16Optimizer wants one.

    fairseq gives a master without a gradient one of zeros, which would let Adam move the encoders that a batch does not
    use; they are left alone, as they are in fp32.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, masters: Masters) -> None:
        super().__init__(cfg=None)
        self._optimizer, self.masters = optimizer, masters

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn: Callable[[Tensor], Tensor]) -> Tensor:
        """The norm over all processes; FP16Optimizer clips by itself."""
        gradients = [parameter.grad for parameter in self.params if parameter.grad is not None]
        return aggregate_norm_fn(nn.utils.get_total_norm(gradients))

    def step(self, closure: None = None, scale: float = 1.0, groups: None = None) -> None:
        for weight, master in self.masters.items():
            if weight.grad is None:
                master.grad = None
        self.optimizer.step()


class HalfPrecision:
    """One update in fp16. See ``precision.FullPrecision``."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, masters: Masters, total_norm: Callable[[Tensor], Tensor]
    ) -> None:
        common = SimpleNamespace(
            fp16_init_scale=FIRST_SCALE,
            fp16_scale_window=WINDOW,
            fp16_scale_tolerance=0.0,
            threshold_loss_scale=None,
            min_loss_scale=SMALLEST_SCALE,
        )
        self.fairseq = FP16Optimizer(
            SimpleNamespace(optimizer=None, common=common),
            list(masters),
            MasterOptimizer(optimizer, masters),
            list(masters.values()),
        )
        self.total_norm = total_norm
        self.fairseq.zero_grad()  # tells the optimizer of the scale as well

    @property
    def loss_scale(self) -> float:
        """What losses are multiplied by."""
        return self.fairseq.scaler.loss_scale

    def backward(self, loss: Tensor) -> None:
        self.fairseq.backward(loss)

    def step(self, max_norm: float | None) -> bool:
        """Clips and moves the masters and the weights; or, where gradients overflowed, halves the scale: False.

        Raises:
            UserError: the loss scale has come to its end.
        """
        try:
            self.fairseq.clip_grad_norm(max_norm or 0.0, self.total_norm)
        except OverflowError:
            self.fairseq.zero_grad()
            return False
        except FloatingPointError as error:
            raise UserError(
                f"training.precision: fp16 found infinite gradients at any loss scale down to {SMALLEST_SCALE}: lower "
                "optimizer.params.lr, set training.clip_gradients=true with training.max_grad_l2_norm, or use bf16."
            ) from error
        self.fairseq.step()
        self.fairseq.zero_grad()
        return True

    def discard(self) -> None:
        self.fairseq.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state; the optimizer's is kept as in every precision."""
        return {name.lstrip("_"): getattr(self.fairseq.scaler, name) for name in SCALER_STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with that scaler's state; an empty one, of another precision, begins with the first scale."""
        for name in SCALER_STATE:
            if name.lstrip("_") in state:
                setattr(self.fairseq.scaler, name, state[name.lstrip("_")])
        self.fairseq.zero_grad()
