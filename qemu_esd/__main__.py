"""`python -m qemu_esd` is `qemu-esd`."""

from qemu_esd.cli.app import main

if __name__ == "__main__":
    main()
