// Attention in `float`. A file for each type, as the driver compiles a file at its first use.
#include "attention.cuh"

KERNELS(float, f32)
