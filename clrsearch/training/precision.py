"""In which numbers a model computes: float32, or bfloat16 where torch's autocast allows it."""

from __future__ import annotations

from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16"]


def compute_in(precision: Precision, model: torch.nn.Module, device: torch.device) -> None:
    """Have the forward pass of ``model`` compute under autocast, in training and in validation.

    Weights, gradients, the optimizer and, for an output that is a tensor, the loss and the metrics
    stay in float32. With ``float32`` nothing is changed.
    """
    if precision == "float32":
        return
    forward = torch.autocast(device.type, torch.bfloat16)(model.forward)

    def in_bfloat16(*inputs: Any) -> Any:
        output = forward(*inputs)
        return output.float() if isinstance(output, torch.Tensor) else output

    model.forward = in_bfloat16
