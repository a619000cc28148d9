"""The C library's allocator in processes through which one picture after the other passes."""

PICTURE_PROCESS = {
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
    "MALLOC_ARENA_MAX": "2",
}
"""Environment variables for such a process, read by glibc when it starts; other C libraries ignore them.

Left to itself, glibc hands the memory of one picture back and asks for it again for the next, which for a picture of
1200 x 900 takes longer than decoding it; and each of its arenas, of which every thread may get one, keeps up to 64 MiB
that somebody's largest pictures once needed. Two arenas that keep up to 32 MiB are faster, and bound what is kept.
"""
