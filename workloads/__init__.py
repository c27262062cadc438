"""Models, runs, sweeps and published measurements, as YAML and CSV.

A package, so that a folder of the same name in the working directory does not hide it.
"""
