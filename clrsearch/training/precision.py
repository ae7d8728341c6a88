"""The precision a model computes in: float32, or bfloat16 or float16 through torch's autocast."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Literal

import torch

Precision = Literal["float32", "bf16", "fp16"]

AUTOCAST: Mapping[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def compute_in(precision: Precision, model: torch.nn.Module, device: torch.device) -> None:
    """Run the forward pass of ``model`` under autocast, in training and in validation.

    Weights, gradients and the optimizer stay in float32; so do the loss and the metrics, provided
    the model's output is a tensor. ``float32`` changes nothing.
    """
    if precision == "float32":
        return
    replaced = vars(model).get("forward")  # by torch.compile, for example
    forward, itself = type(model).forward, weakref.ref(model)  # a model may not refer to itself

    def in_half(*inputs: Any, **named: Any) -> Any:
        with torch.autocast(device.type, AUTOCAST[precision]):
            output = replaced(*inputs, **named) if replaced else forward(itself(), *inputs, **named)
        return output.float() if isinstance(output, torch.Tensor) else output

    model.forward = in_half
