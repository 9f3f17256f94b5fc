// Keys and values in pages, in `bf16`. A file for each type, as the driver compiles a file at its first use.
#include "paged.cuh"

KERNELS(bf16, bf16)
