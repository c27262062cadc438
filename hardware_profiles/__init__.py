"""Devices, links, clusters and what was fitted on them, as YAML.

A package, so that a folder of the same name in the working directory does not hide it.
"""
