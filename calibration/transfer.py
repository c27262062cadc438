"""Before buying hardware: how well do the datasheet and other devices' coefficients predict a device never
measured?

Coefficients are shares of datasheet facts, so a device without measurements takes those of its donors: each
donor's coefficients with the device's own peak, bandwidth and SMs, and the geometric mean of the times they
give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from calibration.compose import gemm_row_times
from calibration.fit.split import errors
from calibration.predict import streams_of
from calibration.readers import Table
from simulator.cost.gemm import GemmCoefficients
from simulator.cost.kernels import Kernels
from simulator.cost.profile import HeldOut, KernelProfile
from simulator.cost.profile_file import load_kernel_profile
from simulator.spec.cluster import DeviceSpec
from simulator.spec.load import load_device

Array = npt.NDArray[np.float64]


def transferred_gemm_times(
    table: Table, dtype: str, device: DeviceSpec, donors: Sequence[KernelProfile]
) -> Array:
    """Times of the rows of a GEMM table on ``device``, from donors alone."""
    logs = []
    for donor in donors:
        kernels = Kernels(device, donor)
        c: GemmCoefficients = kernels.gemm_fit(dtype).coefficients
        logs.append(np.log(gemm_row_times(table, dtype, kernels.rates(dtype), c, streams_of(kernels))))
    return np.asarray(np.exp(np.mean(logs, axis=0)))


def transfer_errors(table: Table, device: str, donors: Sequence[str], *, dtype: str = "bf16") -> HeldOut:
    """Errors of predicting a device's GEMMs of 512 and more in every dimension from the profiles of
    ``donors``."""
    large = (table["m"] >= 512) & (table["n"] >= 512) & (table["k"] >= 512)
    rows = table.where(large & (table["dtype"] == dtype))
    profiles = [load_kernel_profile(donor) for donor in donors]
    return errors(transferred_gemm_times(rows, dtype, load_device(device), profiles), rows.seconds)
