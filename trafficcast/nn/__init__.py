"""The VMRNN network and the selective scan it stands on."""

from trafficcast.nn.published import load_published
from trafficcast.nn.selective_scan import scan_backend, selective_scan
from trafficcast.nn.vmrnn import VMRNN, parameter_counts, vmrnn_b

__all__ = ["VMRNN", "load_published", "parameter_counts", "scan_backend", "selective_scan", "vmrnn_b"]
