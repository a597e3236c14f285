"""Benchmarks: one file per task, each twinned with a config of `conf/benchmark/`."""
