"""Fitting: measurements in, kernel profile out."""
