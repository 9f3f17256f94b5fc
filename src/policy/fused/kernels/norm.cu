// Root mean square norms: y = x r w with r = 1 / sqrt(mean(x^2) + epsilon). A block has `blockDim.y` rows of threads, one for each
// row of the matrix that it works on; a thread has packs of columns.
#include "common.cuh"

// The normalized row from values that `x` already holds.
template <class T>
__device__ void normalize(const T *x, const T *weight, T *y, int width, float epsilon, float square_sum, float *scratch) {
    constexpr int COUNT = Pack<T>::COUNT;
    float r = rsqrtf(row_sum(square_sum, scratch) / width + epsilon);
    for (int i = threadIdx.x * COUNT; i < width; i += blockDim.x * COUNT) {
        Pack<T> values = load_pack(x + i, width - i), weights = load_pack(weight + i, width - i);
        for (int k = 0; k < COUNT; k++) values.values[k] = narrow<T>(wide(values.values[k]) * r * wide(weights.values[k]));
        store_pack(y + i, values, width - i);
    }
}

template <class T>
__device__ void rms_norm(const T *x, const T *weight, T *y, int rows, int width, float epsilon) {
    constexpr int COUNT = Pack<T>::COUNT;
    __shared__ float scratch[32];
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return; // a whole warp, or the whole block
    long long start = (long long)row * width;
    float sum = 0.0f;
    for (int i = threadIdx.x * COUNT; i < width; i += blockDim.x * COUNT) {
        Pack<T> values = load_pack(x + start + i, width - i);
        for (int k = 0; k < COUNT; k++) sum += wide(values.values[k]) * wide(values.values[k]);
    }
    normalize(x + start, weight, y + start, width, epsilon, sum, scratch);
}

// stream = x + change, y = norm(stream)
template <class T>
__device__ void add_rms_norm(const T *x, const T *change, const T *weight, T *stream, T *y, int rows, int width, float epsilon) {
    constexpr int COUNT = Pack<T>::COUNT;
    __shared__ float scratch[32];
    int row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    long long start = (long long)row * width;
    float sum = 0.0f;
    for (int i = threadIdx.x * COUNT; i < width; i += blockDim.x * COUNT) {
        Pack<T> values = load_pack(x + start + i, width - i), changes = load_pack(change + start + i, width - i);
        for (int k = 0; k < COUNT; k++) {
            values.values[k] = narrow<T>(wide(values.values[k]) + wide(changes.values[k]));
            sum += wide(values.values[k]) * wide(values.values[k]);
        }
        store_pack(stream + start + i, values, width - i);
    }
    // Every thread reads back what it wrote itself.
    normalize(stream + start, weight, y + start, width, epsilon, sum, scratch);
}

// dx = r w dy - x r^3 / width sum(w dy x); the block's part of dw = sum over rows of dy x r goes to `parts`, [blocks, width].
template <class T>
__device__ void rms_norm_backward(
    const T *x, const T *weight, const T *dy, T *dx, float *parts, int rows, int width, float epsilon) {
    constexpr int COUNT = Pack<T>::COUNT;
    __shared__ float scratch[32];
    // [blockDim.y, COUNT, slots]: first the first column of all packs, as neighbours write at once.
    DYNAMIC_SHARED(float, sums);
    int slots = (width + COUNT - 1) / COUNT;
    float *own = sums + threadIdx.y * COUNT * slots;
    for (int i = threadIdx.x; i < COUNT * slots; i += blockDim.x) own[i] = 0.0f;
    // A thread does not come back to what it has set to zero itself.
    __syncthreads();
    int step = gridDim.x * blockDim.y;
    for (int row = blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += step) {
        long long start = (long long)row * width;
        float square_sum = 0.0f, product_sum = 0.0f;
        for (int i = threadIdx.x * COUNT; i < width; i += blockDim.x * COUNT) {
            Pack<T> values = load_pack(x + start + i, width - i), weights = load_pack(weight + i, width - i);
            Pack<T> gradients = load_pack(dy + start + i, width - i);
            for (int k = 0; k < COUNT; k++) {
                float value = wide(values.values[k]);
                square_sum += value * value;
                product_sum += value * wide(weights.values[k]) * wide(gradients.values[k]);
            }
        }
        float r = rsqrtf(row_sum(square_sum, scratch) / width + epsilon);
        float pull = row_sum(product_sum, scratch) * r * r * r / width;
        for (int i = threadIdx.x * COUNT; i < width; i += blockDim.x * COUNT) {
            Pack<T> values = load_pack(x + start + i, width - i), weights = load_pack(weight + i, width - i);
            Pack<T> gradients = load_pack(dy + start + i, width - i);
            for (int k = 0; k < COUNT; k++) {
                float value = wide(values.values[k]), gradient = wide(gradients.values[k]);
                own[k * slots + i / COUNT] += gradient * value * r;
                values.values[k] = narrow<T>(r * wide(weights.values[k]) * gradient - value * pull);
            }
            store_pack(dx + start + i, values, width - i);
        }
    }
    __syncthreads();
    int thread = threadIdx.y * blockDim.x + threadIdx.x;
    for (int i = thread; i < width; i += blockDim.x * blockDim.y) {
        float sum = 0.0f;
        for (unsigned part = 0; part < blockDim.y; part++) sum += sums[(part * COUNT + i % COUNT) * slots + i / COUNT];
        parts[(long long)blockIdx.x * width + i] = sum;
    }
}

#define KERNELS(T, type)                                                                                                \
    extern "C" __global__ void rms_norm_##type(                                                                         \
        const T *x, const T *weight, T *y, int rows, int width, float epsilon) {                                        \
        rms_norm<T>(x, weight, y, rows, width, epsilon);                                                                \
    }                                                                                                                   \
    EXPORT(rms_norm_##type)                                                                                             \
    extern "C" __global__ void add_rms_norm_##type(                                                                     \
        const T *x, const T *change, const T *weight, T *stream, T *y, int rows, int width, float epsilon) {            \
        add_rms_norm<T>(x, change, weight, stream, y, rows, width, epsilon);                                            \
    }                                                                                                                   \
    EXPORT(add_rms_norm_##type)                                                                                         \
    extern "C" __global__ void rms_norm_backward_##type(                                                                \
        const T *x, const T *weight, const T *dy, T *dx, float *parts, int rows, int width, float epsilon) {            \
        rms_norm_backward<T>(x, weight, dy, dx, parts, rows, width, epsilon);                                           \
    }                                                                                                                   \
    EXPORT(rms_norm_backward_##type)

KERNELS(float, f32)
KERNELS(bf16, bf16)
KERNELS(f16, f16)
