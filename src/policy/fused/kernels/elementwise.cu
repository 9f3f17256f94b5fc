// Rotary positions, the gate of the feed-forward layer, sums of gradients: a thread for each element or pair; and sums of rows.
#include "common.cuh"

// Turns the pair (x[i], x[i + half]) of each head by the angle of its row's position, or back. Rows of `x` are
// [rows, heads, 2 half]; `cosines` and `sines` are [positions, half].
template <class T>
__device__ void rotary(
    const T *x, const unsigned *positions, const float *cosines, const float *sines, T *y, int rows, int heads, int half,
    float direction) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * heads * half) return;
    long long head = index / half;
    int column = index % half;
    long long angle = (long long)positions[head / heads] * half + column;
    long long place = head * 2 * half + column;
    float cosine = cosines[angle], sine = sines[angle] * direction;
    float a = wide(x[place]), b = wide(x[place + half]);
    y[place] = narrow<T>(a * cosine - b * sine);
    y[place + half] = narrow<T>(b * cosine + a * sine);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// silu(gate) up
template <class T> __device__ void swiglu(const T *gate, const T *up, T *y, int rows, int width) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * width) return;
    float x = wide(gate[index]);
    y[index] = narrow<T>(x * sigmoid(x) * wide(up[index]));
}

// The same where a row of `both` is a row of `gate` and then one of `up`.
template <class T> __device__ void swiglu_joined(const T *both, T *y, int rows, int width) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * width) return;
    const T *gate = both + (index / width) * width + index;
    float x = wide(*gate);
    y[index] = narrow<T>(x * sigmoid(x) * wide(gate[width]));
}

// With s = sigmoid(gate): of the gate dy up s (1 + gate (1 - s)), of up dy gate s.
template <class T>
__device__ void swiglu_backward(const T *gate, const T *up, const T *dy, T *of_gate, T *of_up, int rows, int width) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * width) return;
    float x = wide(gate[index]), s = sigmoid(x), gradient = wide(dy[index]);
    of_gate[index] = narrow<T>(gradient * wide(up[index]) * s * (1.0f + x * (1.0f - s)));
    of_up[index] = narrow<T>(gradient * x * s);
}

// sum += x
template <class T> __device__ void accumulate(const T *x, float *sum, int rows, int width) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index < (long long)rows * width) sum[index] += wide(x[index]);
}

// A block adds the rows of one index, in their order: a row of `entries` is the index, and the first and the end of its rows in
// `rows`.
template <class T>
__device__ void add_rows(const T *x, const unsigned *entries, const unsigned *rows, float *sums, int width) {
    const unsigned *entry = entries + blockIdx.x * 3;
    float *own = sums + (long long)entry[0] * width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = own[column];
        for (unsigned i = entry[1]; i < entry[2]; i++) sum += wide(x[(long long)rows[i] * width + column]);
        own[column] = sum;
    }
}

#define KERNELS(T, type)                                                                                               \
    extern "C" __global__ void rotary_##type(                                                                          \
        const T *x, const unsigned *positions, const float *cosines, const float *sines, T *y, int rows, int heads,    \
        int half, float direction) {                                                                                   \
        rotary<T>(x, positions, cosines, sines, y, rows, heads, half, direction);                                      \
    }                                                                                                                  \
    EXPORT(rotary_##type)                                                                                              \
    extern "C" __global__ void swiglu_##type(const T *gate, const T *up, T *y, int rows, int width) {                  \
        swiglu<T>(gate, up, y, rows, width);                                                                           \
    }                                                                                                                  \
    EXPORT(swiglu_##type)                                                                                              \
    extern "C" __global__ void swiglu_joined_##type(const T *both, T *y, int rows, int width) {                        \
        swiglu_joined<T>(both, y, rows, width);                                                                        \
    }                                                                                                                  \
    EXPORT(swiglu_joined_##type)                                                                                       \
    extern "C" __global__ void swiglu_backward_##type(                                                                 \
        const T *gate, const T *up, const T *dy, T *of_gate, T *of_up, int rows, int width) {                          \
        swiglu_backward<T>(gate, up, dy, of_gate, of_up, rows, width);                                                 \
    }                                                                                                                  \
    EXPORT(swiglu_backward_##type)                                                                                     \
    extern "C" __global__ void accumulate_##type(const T *x, float *sum, int rows, int width) {                        \
        accumulate<T>(x, sum, rows, width);                                                                            \
    }                                                                                                                  \
    EXPORT(accumulate_##type)                                                                                          \
    extern "C" __global__ void add_rows_##type(                                                                        \
        const T *x, const unsigned *entries, const unsigned *rows, float *sums, int width) {                           \
        add_rows<T>(x, entries, rows, sums, width);                                                                    \
    }                                                                                                                  \
    EXPORT(add_rows_##type)

KERNELS(float, f32)
KERNELS(bf16, bf16)
KERNELS(f16, f16)
