"""Read published VMRNN weights, whose parameter names are those of the paper's code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from trafficcast.nn.vmrnn import VMRNN

# Patterns of our names -> names in the paper's code: the cells, the parameters of a cell's blocks, and all others.
_CELLS = [
    (r"cell", r"ST.layer"),
    (r"down\.(\d+)\.cell", r"Downsample.layers.\1"),
    (r"up\.(\d+)\.cell", r"Upsample.layers.\1"),
]
_BLOCK = [
    (r"norm\.(.+)", r"ln_1.\1"),
    (r"mix_hidden\.(.+)", r"linear.\1"),
    (r"ss2d\.scan_proj", r"self_attention.x_proj_weight"),
    (r"ss2d\.dt_(weight|bias)", r"self_attention.dt_projs_\1"),
    (r"ss2d\.A_log", r"self_attention.A_logs"),
    (r"ss2d\.D", r"self_attention.Ds"),
    (r"ss2d\.conv\.(.+)", r"self_attention.conv2d.\1"),
    (r"ss2d\.((?:in_proj|out_\w+)\..+)", r"self_attention.\1"),
]
_REST = [
    (r"embedding\.(.+)", r"ST.patch_embed.\1"),
    (r"head\.final\.(.+)", r"ST.patch_inflated.Conv.\1"),
    (r"head\.inner\.(.+)", r"ST.patch_inflated.Conv_.\1"),
    (r"down_embedding\.(.+)", r"Downsample.patch_embed.\1"),
    (r"down\.(\d+)\.resize\.(.+)", r"Downsample.downsample.\1.\2"),
    (r"up_embedding\.(.+)", r"Upsample.patch_embed.\1"),
    (r"up\.(\d+)\.resize\.(.+)", r"Upsample.upsample.\1.\2"),
    (r"up_head\.final\.(.+)", r"Upsample.Unembed.Conv.\1"),
]


def _published_name(name: str) -> str:
    """Return the name in the paper's code of one of our parameters, such as `cell.blocks.0.ss2d.D`."""
    if match := re.fullmatch(r"(.+)\.blocks\.(\d+)\.(.+)", name):
        return f"{_translated(match[1], _CELLS)}.VSBs.{match[2]}.{_translated(match[3], _BLOCK)}"
    return _translated(name, _REST)


def _translated(part: str, names: list[tuple[str, str]]) -> str:
    """Translate a part of a name, or raise a ValueError where the paper's networks have no such part."""
    for ours, theirs in names:
        if match := re.fullmatch(ours, part):
            return match.expand(theirs)
    raise ValueError(f"The paper's networks have no {part}, so no published weights fit this network.")


def load_published_weights(model: VMRNN, weights: str | PathLike[str] | Mapping[str, Any]) -> None:
    """Copy published weights into a network, all of them or none.

    Parameters
    ----------
    model
        The network whose weights are replaced.
    weights
        A .npz file, a .safetensors file, or a mapping of name to array. The names are those of the paper's code,
        alone, or after `weights/` where other arrays are beside them.

    Raises
    ------
    ValueError
        A parameter is missing, has another shape, or is not one of the network's; the message names it.
    """
    found = dict(weights) if isinstance(weights, Mapping) else _read(Path(weights))
    if any(name.startswith("weights/") for name in found):
        found = {name.removeprefix("weights/"): w for name, w in found.items() if name.startswith("weights/")}
    copies: list[tuple[Tensor, Tensor]] = []
    for name, current in model.named_parameters():
        name_there = _published_name(name)
        if name_there not in found:
            raise ValueError(f"The weights have no parameter {name_there}, which the network needs.")
        value = torch.as_tensor(found.pop(name_there))
        # A_log and D are (directions, inner, ...) here and (directions * inner, ...) in the weight files.
        joined = name.endswith((".A_log", ".D"))
        expected = current.flatten(0, 1).shape if joined else current.shape
        if value.shape != expected:
            raise ValueError(
                f"The parameter {name_there} has the shape {tuple(value.shape)} in the weights, "
                f"but the network needs {tuple(expected)}."
            )
        copies.append((current, value.reshape(current.shape)))
    unused = {_published_name(name) for name in model._unused_shapes()}
    for name in found:
        if name not in unused:
            raise ValueError(f"The weights have a parameter {name}, which the network does not have.")
    with torch.no_grad():
        for parameter, value in copies:
            parameter.copy_(value)


def _read(path: Path) -> dict[str, Any]:
    """Read the arrays of a file by name."""
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix in (".pt", ".pth"):
        raise ValueError(
            f"{path} is a pickle, which can run any code when it is read: convert it to .safetensors first."
        )
    raise ValueError(f"Published weights are read from .npz or .safetensors files, not from {path}.")
