"""The floating-point types in which models compute, by the names in recipes and command lines."""

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
