"""Measure kernels on real GPUs, read others' measurements, fit the coefficients of the kernel models, check
them."""
