// One binary for every x86-64 processor: the loader picks the version with vectors as wide as the processor's.
#pragma once

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__)
#define WIDE_VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define WIDE_VECTORS
#endif

// What a function with WIDE_VECTORS calls must become part of it, to be compiled for the same processor.
#if defined(__GNUC__)
#define INLINE __attribute__((always_inline)) inline
#else
#define INLINE inline
#endif
