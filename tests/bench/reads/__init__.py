"""Benchmarks of reads: from nodes inside one QEMU, by one instrument."""
