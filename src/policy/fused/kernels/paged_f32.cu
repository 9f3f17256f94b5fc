// Keys and values in pages, in `float`. A file for each type, as the driver compiles a file at its first use.
#include "paged.cuh"

KERNELS(float, f32)
