"""The VMRNN networks and the selective scan, their main operation."""

from trafficcast.nn.cross_scan import scan_backend
from trafficcast.nn.published_weights import load_published_weights
from trafficcast.nn.selective_scan import selective_scan
from trafficcast.nn.vmrnn import VMRNN, NetworkSizes, parameter_counts, vmrnn_b
from trafficcast.nn.vmrnn_c import VMRNNC, vmrnn_c
from trafficcast.nn.vmrnn_d import vmrnn_d

__all__ = [
    "VMRNN",
    "VMRNNC",
    "NetworkSizes",
    "load_published_weights",
    "parameter_counts",
    "scan_backend",
    "selective_scan",
    "vmrnn_b",
    "vmrnn_c",
    "vmrnn_d",
]
