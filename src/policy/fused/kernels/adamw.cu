// One step of AdamW for all tensors at once, and the squares of all gradients. A block has a chunk of one tensor: a row of `chunks` is
// the number of the tensor and that of the chunk in it.
#include "common.cuh"

constexpr long long CHUNK = 65536; // as in adamw.rs

struct Chunk {
    long long first, end;

    __device__ Chunk(const unsigned *sizes, const unsigned *chunk) {
        first = chunk[1] * CHUNK;
        end = min(first + CHUNK, (long long)sizes[chunk[0]]);
    }
};

// A row of `addresses` is: weight, gradient (null if it is zero), first moment, second moment, copy of the weight. `kept` is what
// the decay leaves of a weight, by tensor.
template <class T>
__device__ void adamw(
    const unsigned long long *addresses, const unsigned *sizes, const float *kept, const unsigned *chunks, float rate,
    float beta1, float rest1, float beta2, float rest2, float second_correction, float epsilon, float gradient_scale) {
    const unsigned *own = chunks + blockIdx.x * 2;
    Chunk chunk(sizes, own);
    const unsigned long long *tensor = addresses + own[0] * 5;
    float *weight = reinterpret_cast<float *>(tensor[0]);
    const float *gradient = reinterpret_cast<const float *>(tensor[1]);
    float *first = reinterpret_cast<float *>(tensor[2]), *second = reinterpret_cast<float *>(tensor[3]);
    T *copy = reinterpret_cast<T *>(tensor[4]);
    float keep = kept[own[0]];
    for (long long i = chunk.first + threadIdx.x; i < chunk.end; i += blockDim.x) {
        float change = gradient ? gradient[i] * gradient_scale : 0.0f;
        float m = first[i] * beta1 + change * rest1, v = second[i] * beta2 + change * change * rest2;
        float w = weight[i] * keep - rate * m / (sqrtf(v / second_correction) + epsilon);
        first[i] = m;
        second[i] = v;
        weight[i] = w;
        copy[i] = narrow<T>(w);
    }
}

// The sum of the squares of each chunk; `addresses` are those of the tensors.
extern "C" __global__ void square_sums(
    const unsigned long long *addresses, const unsigned *sizes, const unsigned *chunks, float *sums) {
    __shared__ float scratch[32];
    const unsigned *own = chunks + blockIdx.x * 2;
    Chunk chunk(sizes, own);
    const float *values = reinterpret_cast<const float *>(addresses[own[0]]);
    float sum = 0.0f;
    for (long long i = chunk.first + threadIdx.x; i < chunk.end; i += blockDim.x) sum += values[i] * values[i];
    sum = row_sum(sum, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
EXPORT(square_sums)

#define KERNELS(T, type)                                                                                                   \
    extern "C" __global__ void adamw_##type(                                                                               \
        const unsigned long long *addresses, const unsigned *sizes, const float *kept, const unsigned *chunks, float rate, \
        float beta1, float rest1, float beta2, float rest2, float second_correction, float epsilon, float gradient_scale) { \
        adamw<T>(                                                                                                          \
            addresses, sizes, kept, chunks, rate, beta1, rest1, beta2, rest2, second_correction, epsilon, gradient_scale); \
    }                                                                                                                      \
    EXPORT(adamw_##type)

KERNELS(float, f32)
KERNELS(bf16, bf16)
KERNELS(f16, f16)
