"""Large buffers kept by the C library instead of being returned to the kernel after each layer.

glibc maps every block over 32 MB afresh and gives it back on free: the pages of each feature map are then zeroed by the
kernel again and again. Measured on one training benchmark: 7.8 s of kernel time with the default, 1.2 s with this.
"""

import ctypes
import functools
import sys

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


@functools.cache
def keep_large_buffers() -> None:
    """Tell glibc, for this process, to serve large blocks from the heap; does nothing with another C library."""
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_TOP_PAD, 64 << 20)
        # One heap for all threads: those of other threads are too small for a feature map. Two threads on windows of
        # 4288 px took 10 s of kernel time for a scene without this, and 3 s, once, with it.
        library.mallopt(_ARENA_MAX, 1)
