"""``training.precision: fp16``: fp16 weights, fp32 master weights and dynamic loss scaling with fairseq."""

from types import SimpleNamespace
from typing import Any

import torch
from fairseq.modules.layer_norm import Fp32LayerNorm
from fairseq.optim import FairseqOptimizer, FP16Optimizer
from torch import Tensor, nn

from mmf_flava.errors import UserError
from mmf_flava.training.engine import Masters
from mmf_flava.training.model_interface import replicated_modules

# the loss scale doubles after SCALE_WINDOW steps without an overflow, for any number of processes
INITIAL_SCALE, SCALE_WINDOW, MIN_SCALE = 2.0**15, 2000, 1e-4
SCALER_STATE = ("loss_scale", "_iter", "_last_overflow_iter", "_last_rescale_iter", "_overflows_since_rescale")


def use_fp32_layer_norms(model: nn.Module) -> None:
    """Replace every LayerNorm by fairseq's ``Fp32LayerNorm``, which computes in fp32 (FLAVA paper, §3.4).

    The output has the dtype of the input. The weights may be fp16, e.g. weights gathered by FSDP.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.LayerNorm:
                norm = Fp32LayerNorm(child.normalized_shape, child.eps)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(parent, name, norm)


def init_zero_parameters(model: nn.Module, std: float = 0.02) -> None:
    """Initialise all-zero trainable embeddings ([CLS] and positions) with samples of N(0, ``std``).

    For an input of zeros, the backward pass of a LayerNorm with epsilon 1e-12 multiplies gradients by 1e6. This
    overflows fp16, and the loss scale would decrease until other gradients underflow. All processes sample the same
    values. Layers whose ``weight`` is zero, e.g. the last one of a residual branch, are not changed.
    """
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        is_layer = name.rpartition(".")[2] == "weight"
        if weight.requires_grad and weight.ndim > 1 and not is_layer and not weight.any():
            weight.data.copy_(std * torch.randn(weight.shape, generator=generator))


def cast_to_fp16(model: nn.Module) -> dict[nn.Parameter, nn.Parameter]:
    """Cast the parameters to fp16, and return the fp32 master parameter of each fp16 parameter, also of frozen ones.

    LayerNorms and the logit scale, whose exponential multiplies all logits, stay in fp32, and so do the modules that
    the model names in ``replicated_modules``.
    """
    kept = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    kept += [module for name in replicated_modules(model) if (module := getattr(model, name)) is not None]
    fp32 = {parameter for module in kept for parameter in module.parameters()}
    masters = {}
    for weight in model.parameters():
        if weight not in fp32 and weight.ndim > 0:
            masters[weight] = nn.Parameter(weight.data, weight.requires_grad)
            weight.data = weight.data.half()
    return masters


def fp32_values(model: nn.Module, masters: Masters) -> dict[str, Tensor]:
    """Return the fp32 values of the frozen parameters that ``cast_to_fp16`` has cast, by name."""
    named = model.named_parameters(remove_duplicate=False)
    return {name: masters[weight].data for name, weight in named if weight in masters and not weight.requires_grad}


def add_fp32_parameters(weights: list[nn.Parameter], masters: Masters) -> Masters:
    """Return the masters of all weights. The master of a weight that is already fp32 shares the weight's memory."""
    return {weight: masters[weight] if weight in masters else nn.Parameter(weight.data) for weight in weights}


class MasterOptimizer(FairseqOptimizer):
    """Adapter that lets fairseq's FP16Optimizer use an MMF optimizer of master parameters.

    fairseq replaces missing gradients by zeros, and Adam would then update encoders that the batch does not use.
    ``step`` removes the zero gradients, so that unused parameters do not change, as in fp32.

    Attributes:
        norm: norm of the gradients of the complete model, set before every step.
    """

    norm = 0.0

    def __init__(self, optimizer: torch.optim.Optimizer, masters: Masters) -> None:
        super().__init__(cfg=None)
        self._optimizer, self.masters = optimizer, masters

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn: None = None) -> float:
        """Return ``norm``. Does not clip, because FP16Optimizer clips the gradients."""
        return self.norm

    def step(self, closure: None = None, scale: float = 1.0, groups: None = None) -> None:
        for weight, master in self.masters.items():
            if weight.grad is None:
                master.grad = None
        self.optimizer.step()


class HalfPrecision:
    """Implementation of ``precision.Precision`` for fp16, with dynamic loss scaling."""

    def __init__(self, optimizer: torch.optim.Optimizer, masters: Masters) -> None:
        common = SimpleNamespace(
            fp16_init_scale=INITIAL_SCALE,
            fp16_scale_window=SCALE_WINDOW,
            fp16_scale_tolerance=0.0,
            threshold_loss_scale=None,
            min_loss_scale=MIN_SCALE,
        )
        self.optimizer = MasterOptimizer(optimizer, masters)
        self.fairseq = FP16Optimizer(
            SimpleNamespace(optimizer=None, common=common), list(masters), self.optimizer, list(masters.values())
        )
        self.fairseq.zero_grad()  # also makes fairseq set its gradient multiplier from the loss scale

    @property
    def loss_scale(self) -> float:
        """Factor by which losses are multiplied before the backward pass."""
        return self.fairseq.scaler.loss_scale

    def backward(self, loss: Tensor) -> None:
        self.fairseq.backward(loss)

    def norm(self) -> Tensor:
        self.fairseq._sync_fp16_grads_to_fp32()  # the norm of fp16 gradients would overflow
        return nn.utils.get_total_norm([p.grad for p in self.optimizer.params if p.grad is not None])

    def step(self, max_norm: float | None, norm: float) -> bool:
        """Clip gradients and update the parameters. If gradients overflowed, halve the loss scale instead.

        Returns:
            False if gradients overflowed.

        Raises:
            UserError: gradients overflow at the minimum loss scale.
        """
        self.optimizer.norm = norm
        try:
            self.fairseq.clip_grad_norm(max_norm or 0.0)
        except OverflowError:
            self.fairseq.zero_grad()
            return False
        except FloatingPointError as error:
            raise UserError(
                f"training.precision: fp16: gradients are infinite at every loss scale down to {MIN_SCALE}. Lower "
                "optimizer.params.lr, set training.clip_gradients=true with training.max_grad_l2_norm, or use bf16."
            ) from error
        self.fairseq.step()
        self.fairseq.zero_grad()
        return True

    def zero_grad(self) -> None:
        self.fairseq.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss scaler."""
        return {name.lstrip("_"): getattr(self.fairseq.scaler, name) for name in SCALER_STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state of the loss scaler. An empty state, saved with another precision, changes nothing."""
        for name in SCALER_STATE:
            if name.lstrip("_") in state:
                setattr(self.fairseq.scaler, name, state[name.lstrip("_")])
        self.fairseq.zero_grad()
