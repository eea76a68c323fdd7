"""GPU memory: how much models need, where they fit, and which CUDA build a host gets. Pure: no
files, no network.
"""
