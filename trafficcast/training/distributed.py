"""Data-parallel training: the processes that torchrun started, each with its share of every batch.

A process of its own is the first of one, and everything here does nothing. Gradients are added up after the backward
pass, all at once, where DistributedDataParallel would add them from hooks during it: the networks have nine megabytes
of them, a captured CUDA graph has no hooks, and so the shares of a batch may be of different sizes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn

from trafficcast.errors import InputError, JobError

# The others wait while the first process waits for its turn to write. A process that dies ends them all at once.
_PATIENCE = timedelta(days=1)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes, where torchrun started this one: gloo between CPUs, nccl between GPUs."""
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    yield
    dist.destroy_process_group()  # not after an error: the others may wait for what never comes


def _processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Which of the processes this is, from 0. The first one alone writes, prints and logs."""
    return dist.get_rank() if _joined() else 0


def _own_device(device: torch.device) -> torch.device:
    """The device of this process: of several on a machine, each has a GPU of its own.

    Raises InputError where there are fewer GPUs than processes, and for a device that several cannot share.
    """
    if _processes() == 1 or device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise InputError(f"{_processes()} processes cannot train on '{device}': give --device cuda, or cpu")
    number, gpus = dist.get_node_local_rank(), torch.cuda.device_count()
    if number >= gpus:
        raise InputError(f"every process needs a GPU and there are {gpus}: torchrun --nproc-per-node {gpus}")
    own = torch.device("cuda", number)
    torch.cuda.set_device(own)
    return own


def _share(batch: torch.Tensor) -> tuple[torch.Tensor, float]:
    """This process's windows of a batch (n), and their weight in it: the means over all shares, so weighted, add up.

    A process for which a small batch has no window takes one with weight 0: it must come along.
    """
    own = batch[rank() :: _processes()]
    return (own, len(own) / len(batch)) if len(own) else (batch[:1], 0.0)


def _add_up(tensors: Iterable[torch.Tensor]) -> None:
    """Replace tensors, all of one type and device, by their sums over all processes, the same in each to the bit."""
    if _processes() == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def _add_up_gradients(network: nn.Module, loss: torch.Tensor) -> None:
    """Replace the gradients and the loss of each process's share by those of the whole batch.

    A parameter without a gradient stays without: every process makes the same steps, so it has none anywhere.
    """
    _add_up([loss, *(p.grad for p in network.parameters() if p.grad is not None)])


def _agree(what: str, text: str) -> None:
    """Wait for all processes. Raises JobError where they do not have the same text, as with other data folders."""
    if _processes() == 1:
        return
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    highest = torch.tensor([digest, -digest])
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    if highest[0] != -highest[1]:
        raise JobError(f"the processes do not see the same {what}: start them again, with one data folder for all")


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()
