"""qemu-esd: local disks that behave as one emulated shared storage device."""

__version__ = "0.1.0"
