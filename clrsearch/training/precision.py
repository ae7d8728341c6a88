"""The precision a model computes in: float32, or bfloat16 through torch's autocast."""

from __future__ import annotations

import weakref
from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16"]


def compute_in(precision: Precision, model: torch.nn.Module, device: torch.device) -> None:
    """Run the forward pass of ``model`` under autocast, in training and in validation.

    Weights, gradients and the optimizer stay in float32; so do the loss and the metrics, provided
    the model's output is a tensor. ``float32`` changes nothing.
    """
    if precision == "float32":
        return
    replaced = vars(model).get("forward")  # by torch.compile, for example
    forward, itself = type(model).forward, weakref.ref(model)  # a model may not refer to itself

    def in_bfloat16(*inputs: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16):
            output = replaced(*inputs) if replaced else forward(itself(), *inputs)
        return output.float() if isinstance(output, torch.Tensor) else output

    model.forward = in_bfloat16
