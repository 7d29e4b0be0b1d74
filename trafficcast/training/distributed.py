"""Data-parallel training: each of the processes that torchrun started computes its share of every batch.

A single process computes whole batches, and the functions of this module do nothing. Gradients are summed after the
backward pass, all at once, where DistributedDataParallel sums them in hooks during it: a captured CUDA graph has no
hooks, the networks have only nine megabytes of gradients, and the shares of a batch may be of different sizes.
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

# The others wait while the first process waits for the writer's lock. A process that dies ends all of them at once.
_PATIENCE = timedelta(days=1)


@contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes where torchrun started this one: by gloo between CPUs, by nccl between GPUs.

    Yields
    ------
    None
        Nothing; the processes are joined until the context ends.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    yield
    dist.destroy_process_group()  # not after an error, when the others may wait for this one


def _processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Return the rank of this process; only the process of rank 0 writes, prints and logs.

    Returns
    -------
    int
        The rank, from 0.
    """
    return dist.get_rank() if _joined() else 0


def _own_device(device: torch.device) -> torch.device:
    """Return the device of this process; of several processes on a machine each has its own GPU.

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
    """Return this process's windows of a batch (n), and their share of it, by which their mean is weighted.

    A process for which a small batch has no window takes one with weight 0, because all must make the same steps.
    """
    own = batch[rank() :: _processes()]
    return (own, len(own) / len(batch)) if len(own) else (batch[:1], 0.0)


def _sum_over_processes(tensors: Iterable[torch.Tensor]) -> None:
    """Replace tensors, all of one type and device, by their sums over all processes, the same in each to the bit."""
    if _processes() == 1:
        return
    tensors = list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def _sum_gradients(network: nn.Module, loss: torch.Tensor) -> None:
    """Replace the gradients and the loss of each process's share by those of the whole batch.

    A parameter without a gradient has none in any process, because all make the same steps.
    """
    _sum_over_processes([loss, *(p.grad for p in network.parameters() if p.grad is not None)])


def _agree(subject: str, text: str) -> None:
    """Wait for all processes. Raises JobError where their texts differ, for instance with different data folders."""
    if _processes() == 1:
        return
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
    highest = torch.tensor([digest, -digest])
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    if highest[0] != -highest[1]:
        raise JobError(f"the processes do not see the same {subject}: start them again, with one data folder for all")


def _joined() -> bool:
    """Return whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()
