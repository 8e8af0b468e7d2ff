"""Benchmarks: what is measured against what, and how, one package a workload."""
