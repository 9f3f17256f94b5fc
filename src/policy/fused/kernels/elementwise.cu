// Rotary positions, the gate of the feed-forward layer, sums of gradients: a thread has a pack of elements or pairs; and sums of rows.
#include "common.cuh"

// The first element of a thread's pack.
template <class T> __device__ __forceinline__ long long own_first() {
    return ((long long)blockIdx.x * blockDim.x + threadIdx.x) * Pack<T>::COUNT;
}

// Turns the pair (x[i] + bias[i], x[i + half] + bias[i + half]) of each head by the angle of its row's position, or back. Rows of `x`
// are [rows, heads, 2 half], `bias`, if there is one, is [heads, 2 half]; `cosines` and `sines` are [positions, half].
template <class T>
__device__ void rotary(
    const T *x, const unsigned *positions, const float *cosines, const float *sines, const T *bias, T *y, int rows, int heads,
    int half, float direction, int is_biased) {
    constexpr int COUNT = Pack<T>::COUNT;
    // Packs of a head; the last one may have fewer pairs.
    int packs = (half + COUNT - 1) / COUNT;
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * heads * packs) return;
    long long head = index / packs;
    int column = index % packs * COUNT, left = half - column;
    long long angle = (long long)positions[head / heads] * half + column, place = head * 2 * half + column;
    Pack<T> first = load_pack(x + place, left), second = load_pack(x + place + half, left);
    if (is_biased) {
        const T *own = bias + head % heads * 2 * half + column;
        Pack<T> first_bias = load_pack(own, left), second_bias = load_pack(own + half, left);
        // Sums are rounded.
        for (int k = 0; k < COUNT; k++) {
            first.values[k] = narrow<T>(wide(first.values[k]) + wide(first_bias.values[k]));
            second.values[k] = narrow<T>(wide(second.values[k]) + wide(second_bias.values[k]));
        }
    }
    for (int k = 0; k < COUNT && k < left; k++) {
        float cosine = cosines[angle + k], sine = sines[angle + k] * direction;
        float a = wide(first.values[k]), b = wide(second.values[k]);
        first.values[k] = narrow<T>(a * cosine - b * sine);
        second.values[k] = narrow<T>(b * cosine + a * sine);
    }
    store_pack(y + place, first, left);
    store_pack(y + place + half, second, left);
}

// y = x + bias for rows of `width`
template <class T> __device__ void add_bias(const T *x, const T *bias, T *y, int rows, int width) {
    constexpr int COUNT = Pack<T>::COUNT;
    int packs = (width + COUNT - 1) / COUNT;
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * packs) return;
    int column = index % packs * COUNT, left = width - column;
    long long place = index / packs * width + column;
    Pack<T> values = load_pack(x + place, left), biases = load_pack(bias + column, left);
    for (int k = 0; k < COUNT; k++) values.values[k] = narrow<T>(wide(values.values[k]) + wide(biases.values[k]));
    store_pack(y + place, values, left);
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// silu(gate) up
template <class T> __device__ __forceinline__ Pack<T> gated(const Pack<T> &gate, const Pack<T> &up) {
    Pack<T> result;
    for (int k = 0; k < Pack<T>::COUNT; k++) {
        float x = wide(gate.values[k]);
        result.values[k] = narrow<T>(x * sigmoid(x) * wide(up.values[k]));
    }
    return result;
}

template <class T> __device__ void swiglu(const T *gate, const T *up, T *y, int rows, int width) {
    long long first = own_first<T>(), left = (long long)rows * width - first;
    if (left <= 0) return;
    store_pack(y + first, gated(load_pack(gate + first, left), load_pack(up + first, left)), left);
}

// The same where a row of `both` is a row of `gate` and then one of `up`.
template <class T> __device__ void swiglu_joined(const T *both, T *y, int rows, int width) {
    constexpr int COUNT = Pack<T>::COUNT;
    int packs = (width + COUNT - 1) / COUNT;
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * packs) return;
    int column = index % packs * COUNT, left = width - column;
    long long row = index / packs;
    const T *gate = both + row * 2 * width + column;
    store_pack(y + row * width + column, gated(load_pack(gate, left), load_pack(gate + width, left)), left);
}

// With s = sigmoid(gate): of the gate dy up s (1 + gate (1 - s)), of up dy gate s.
template <class T>
__device__ void swiglu_backward(const T *gate, const T *up, const T *dy, T *of_gate, T *of_up, int rows, int width) {
    long long first = own_first<T>(), left = (long long)rows * width - first;
    if (left <= 0) return;
    Pack<T> gates = load_pack(gate + first, left), ups = load_pack(up + first, left), gradients = load_pack(dy + first, left);
    for (int k = 0; k < Pack<T>::COUNT; k++) {
        float x = wide(gates.values[k]), s = sigmoid(x), gradient = wide(gradients.values[k]);
        gates.values[k] = narrow<T>(gradient * wide(ups.values[k]) * s * (1.0f + x * (1.0f - s)));
        ups.values[k] = narrow<T>(gradient * x * s);
    }
    store_pack(of_gate + first, gates, left);
    store_pack(of_up + first, ups, left);
}

// sum += x
template <class T> __device__ void accumulate(const T *x, float *sum, int rows, int width) {
    long long first = own_first<T>(), left = (long long)rows * width - first;
    if (left <= 0) return;
    Pack<T> values = load_pack(x + first, left);
    for (int k = 0; k < Pack<T>::COUNT && k < left; k++) sum[first + k] += wide(values.values[k]);
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
        const T *x, const unsigned *positions, const float *cosines, const float *sines, const T *bias, T *y, int rows,\
        int heads, int half, float direction, int is_biased) {                                                         \
        rotary<T>(x, positions, cosines, sines, bias, y, rows, heads, half, direction, is_biased);                     \
    }                                                                                                                  \
    EXPORT(rotary_##type)                                                                                              \
    extern "C" __global__ void add_bias_##type(const T *x, const T *bias, T *y, int rows, int width) {                 \
        add_bias<T>(x, bias, y, rows, width);                                                                          \
    }                                                                                                                  \
    EXPORT(add_bias_##type)                                                                                            \
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
