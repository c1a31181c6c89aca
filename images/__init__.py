"""The guest that tests, demo and benchmarks boot: how it is built, what is on its disks, what it says."""
