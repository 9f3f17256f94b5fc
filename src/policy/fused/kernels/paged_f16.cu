// Keys and values in pages, in `f16`. A file for each type, as the driver compiles a file at its first use.
#include "paged.cuh"

KERNELS(f16, f16)
