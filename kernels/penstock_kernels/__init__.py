"""The steps around models that are slow in NumPy, for CPUs and for NVIDIA's GPUs.

Each operation is a triplet: its signature in a module here (`activations.py`), a twin in `cpu/` that Numba compiles,
and a CUDA source in `cuda/`. It runs on the `Runner` that it is given (`runner.py`).
"""
