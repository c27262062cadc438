"""Timing kernels on this machine: a plan of cases, a backend that runs them, tables that grow as it goes."""
