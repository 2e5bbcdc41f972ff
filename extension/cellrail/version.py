"""The version; the kernel's must be the driver's."""

__version__ = "0.1.0"
