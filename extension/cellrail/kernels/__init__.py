"""Kernels: how one is started, watched and ended."""
