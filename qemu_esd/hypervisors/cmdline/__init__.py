"""QEMU command lines: read one that somebody wrote, write one for another host. No I/O."""
