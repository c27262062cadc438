"""Compute beside communication: collectives are kernels too, and take processors from what runs beside them.

While a collective runs, a matrix product has the device's processors less those the collective holds, and its
rate falls in proportion.
"""

from __future__ import annotations

from simulator.spec.cluster import DeviceSpec

COMMUNICATION_PROCESSORS = 16
"""Streaming multiprocessors that a collective inside a node holds.

Transformer Engine's user buffers default to 16 (``num_sm``), and NCCL's NVLink SHARP kernels launch 16 to 24
thread blocks on Hopper, each filling one multiprocessor. Copy-engine transfers hold none.
"""
LARGEST_SHARE = 0.5  # of a small device's processors, so that compute beside a collective goes on


def communication_share(device: DeviceSpec) -> float:
    """Share of a device's processors that a collective holds; a TPU has engines of their own for it."""
    if device.architecture == "tpu":
        return 0.0
    return min(COMMUNICATION_PROCESSORS / device.sm_count, LARGEST_SHARE)


def slowed(seconds: float, beside_s: float, share: float) -> float:
    """Length of a product beside ``beside_s`` of communication that holds ``share`` of the processors.

    While both run the product works at rate 1 − share: either it ends first, or it has done
    (1 − share)·beside_s of its work when the communication ends.
    """
    return min(seconds / (1.0 - share), seconds + share * beside_s)
