"""Read weights under the parameter names that published VMRNN weight files use."""

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

# Our name -> the published name. Tried in this order; \1 is what the group matched.
NAMES = [
    (r"embedding\.(.+)", r"ST.patch_embed.\1"),
    (r"head\.final\.(.+)", r"ST.patch_inflated.Conv.\1"),
    (r"head\.inner\.(.+)", r"ST.patch_inflated.Conv_.\1"),
    (r"cell\.blocks\.(\d+)\.norm\.(.+)", r"ST.layer.VSBs.\1.ln_1.\2"),
    (r"cell\.blocks\.(\d+)\.mix_hidden\.(.+)", r"ST.layer.VSBs.\1.linear.\2"),
    (r"cell\.blocks\.(\d+)\.ss2d\.scan_proj", r"ST.layer.VSBs.\1.self_attention.x_proj_weight"),
    (r"cell\.blocks\.(\d+)\.ss2d\.dt_(weight|bias)", r"ST.layer.VSBs.\1.self_attention.dt_projs_\2"),
    (r"cell\.blocks\.(\d+)\.ss2d\.A_log", r"ST.layer.VSBs.\1.self_attention.A_logs"),
    (r"cell\.blocks\.(\d+)\.ss2d\.D", r"ST.layer.VSBs.\1.self_attention.Ds"),
    (r"cell\.blocks\.(\d+)\.ss2d\.conv\.(.+)", r"ST.layer.VSBs.\1.self_attention.conv2d.\2"),
    (r"cell\.blocks\.(\d+)\.ss2d\.((?:in_proj|out_\w+)\..+)", r"ST.layer.VSBs.\1.self_attention.\2"),
]
# Parameters that the published network has and never calls: the projections of all blocks but the first.
UNUSED = re.compile(r"ST\.layer\.VSBs\.([1-9]\d*)\.linear\.(weight|bias)")


def published_name(name: str) -> str:
    """The published name of one of our parameters, such as `cell.blocks.0.ss2d.D`."""
    for ours, published in NAMES:
        if match := re.fullmatch(ours, name):
            return match.expand(published)
    raise KeyError(name)


def load_published(model: VMRNN, weights: str | PathLike[str] | Mapping[str, Any]) -> None:
    """Copy published weights into `model`, all of them or, with a ValueError that names the parameter, none.

    weights: a .npz file, a .safetensors file, or a mapping of name to array; the names bare, or under `weights/`
    with whatever else beside them.
    """
    found = dict(weights) if isinstance(weights, Mapping) else _read(Path(weights))
    if any(name.startswith("weights/") for name in found):
        found = {name.removeprefix("weights/"): w for name, w in found.items() if name.startswith("weights/")}
    copies: list[tuple[Tensor, Tensor]] = []
    for name, current in model.named_parameters():
        published = published_name(name)
        if published not in found:
            raise ValueError(f"The weights have no parameter {published}, which the network needs.")
        value = torch.as_tensor(found.pop(published))
        # A_log and D are (directions, inner, ...) here and (directions * inner, ...) in the published files.
        joined = name.endswith((".A_log", ".D"))
        expected = current.flatten(0, 1).shape if joined else current.shape
        if value.shape != expected:
            raise ValueError(
                f"The parameter {published} has the shape {tuple(value.shape)} in the weights, "
                f"but the network needs {tuple(expected)}."
            )
        copies.append((current, value.reshape(current.shape)))
    depth = len(model.cell.blocks)
    for name in found:
        match = UNUSED.fullmatch(name)
        if match is None or int(match[1]) >= depth:
            raise ValueError(f"The weights have a parameter {name}, which the network does not have.")
    with torch.no_grad():
        for parameter, value in copies:
            parameter.copy_(value)


def _read(path: Path) -> dict[str, Any]:
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
