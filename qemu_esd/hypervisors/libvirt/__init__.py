"""Domains of libvirt: the connection to a host's libvirt, and what it says of a domain."""
