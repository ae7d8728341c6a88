"""A training step as a CUDA graph: its kernels are launched at once, and not one by one.

https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

WARM_UP = 3  # steps that are taken as they are, before one is captured


class Captured:
    """A function of tensors on a GPU, captured after a few calls, and replayed from then on.

    What it changes has to stay where it is, and it must not wait for the GPU. It returns a tensor.
    Arguments of another structure or shape are captured anew.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._calls: dict[Any, int] = {}
        self._graphs: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]] = {}

    def __call__(self, *arguments: Any) -> Tensor:
        leaves, structure = tree_flatten(arguments)
        given = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        others = tuple(leaf for leaf in leaves if not isinstance(leaf, Tensor))
        key = (structure, others, tuple((leaf.shape, leaf.dtype) for leaf in given))
        if key not in self._graphs:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= WARM_UP:
                return self._aside(arguments)
            self._graphs[key] = self._capture(arguments)
        graph, places, result = self._graphs[key]
        for place, leaf in zip(places, given, strict=True):
            place.copy_(leaf)
        graph.replay()
        return result.clone()

    def _aside(self, arguments: tuple[Any, ...]) -> Tensor:
        """Call the function in a stream of its own, as before a capture."""
        new_stream: Any = torch.cuda.Stream
        stream, current = new_stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self._function(*arguments)
        current.wait_stream(stream)
        return result

    def _capture(
        self, arguments: tuple[Any, ...]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Tensor]:
        """The graph of a call, without making it; where its arguments belong, and its result."""
        kept = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, arguments)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._function(*kept)
        places = [leaf for leaf in tree_flatten(kept)[0] if isinstance(leaf, Tensor)]
        return graph, places, result
