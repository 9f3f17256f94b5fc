// What the kernels share: types, sums over warps and blocks. Kernels are named `operation_type` and take the arguments that
// `Operation::launches` lists. The tests compile these files for the CPU with headers of the same names.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef __nv_bfloat16 bf16;
typedef __half f16;

// Makes a kernel known to the emulator of the tests.
#ifndef EXPORT
#define EXPORT(kernel)
#endif

// The block's dynamic shared memory as an array of `type`.
#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(type, name)                              \
    extern __shared__ __align__(128) unsigned char name##_raw[]; \
    type *name = reinterpret_cast<type *>(name##_raw)
#endif

#define EVERY_THREAD 0xffffffffu
#define INFINITE __int_as_float(0x7f800000)

__device__ __forceinline__ float wide(float x) { return x; }
__device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float wide(f16 x) { return __half2float(x); }

template <class T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return __float2bfloat16(x); }
template <> __device__ __forceinline__ f16 narrow<f16>(float x) { return __float2half(x); }

// Elements that a thread reads and writes at once, 16 bytes.
template <class T> struct Pack {
    static constexpr int COUNT = 16 / sizeof(T);
    T values[COUNT];
};

__device__ __forceinline__ bool is_aligned(const void *place) { return reinterpret_cast<size_t>(place) % 16 == 0; }

// The next elements from a place on, of which there are `left`; zeros behind them.
template <class T> __device__ __forceinline__ Pack<T> load_pack(const T *from, long long left) {
    Pack<T> pack;
    if (left >= Pack<T>::COUNT && is_aligned(from)) {
        uint4 bits = *reinterpret_cast<const uint4 *>(from);
        memcpy(pack.values, &bits, 16);
    } else {
        for (int i = 0; i < Pack<T>::COUNT; i++) pack.values[i] = i < left ? from[i] : narrow<T>(0.0f);
    }
    return pack;
}

template <class T> __device__ __forceinline__ void store_pack(T *to, const Pack<T> &pack, long long left) {
    if (left >= Pack<T>::COUNT && is_aligned(to)) {
        uint4 bits;
        memcpy(&bits, pack.values, 16);
        *reinterpret_cast<uint4 *>(to) = bits;
    } else {
        for (int i = 0; i < Pack<T>::COUNT; i++)
            if (i < left) to[i] = pack.values[i];
    }
}

// The sum over the threads of a warp, in all of them.
__device__ __forceinline__ float warp_sum(float x) {
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(EVERY_THREAD, x, step);
    return x;
}

// The sum over the threads of a row of the block (`blockDim.x`, a multiple of 32), in all of them. A row wider than a warp must
// be the only one, as all threads of the block then wait for each other. `scratch` has room for 32 values.
__device__ __forceinline__ float row_sum(float x, float *scratch) {
    x = warp_sum(x);
    if (blockDim.x == 32) return x;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncthreads(); // what an earlier call wrote has been read
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = 0.0f;
    for (unsigned other = 0; other < blockDim.x / 32; other++) x += scratch[other];
    return x;
}
