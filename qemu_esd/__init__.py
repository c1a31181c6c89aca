"""qemu-esd: local disks that behave as one emulated shared storage device."""
