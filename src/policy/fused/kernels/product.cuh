// Products of small matrices in shared memory with sums in registers: tensor cores for the types of 16 bits, plain loops for
// `float`. A warp holds 16 rows of a result.
#pragma once
#include "common.cuh"
#include <mma.h>

namespace wmma = nvcuda::wmma;

// Rows of queries or keys that a block works on: four warps, or two where elements are twice as large. `STEP` parts the rows of
// `D` elements in shared memory, so that they fall into different banks and tensor cores can read them.
template <class T, int D> struct Sizes {
    static constexpr int ROWS = 64, STEP = D + 8;
};
template <int D> struct Sizes<float, D> {
    static constexpr int ROWS = 32, STEP = D + 1;
};

// Which row and column of a 16x16 result an element of a thread belongs to. The hardware does not say, so a matrix that holds its
// own places is loaded once.
template <class T> struct Places {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> index;

    // By all threads of the block; `scratch` has room for 256 values.
    __device__ void find(float *scratch) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x) scratch[i] = i;
        __syncthreads();
        wmma::load_matrix_sync(index, scratch, 16, wmma::mem_row_major);
    }
};
template <> struct Places<float> {
    __device__ void find(float *) {}
};

// Loads a factor from shared memory.
template <class Part, class T> __device__ __forceinline__ void load_shared(Part &part, const T *from, unsigned step) {
    wmma::load_matrix_sync(part, from, step);
}

#ifdef __CUDA_ARCH__
// nvcc loads bf16, unlike f16, by general instructions, four or more for each one that reads shared memory, unless it is told.
#define LOAD_SHARED(use, side, order)                                                                                        \
    template <>                                                                                                              \
    __device__ __forceinline__ void load_shared(                                                                             \
        wmma::fragment<wmma::use, 16, 16, 16, bf16, wmma::order##_major> &part, const bf16 *from, unsigned step) {           \
        unsigned *values = reinterpret_cast<unsigned *>(part.x);                                                             \
        asm volatile("wmma.load." side ".sync.aligned." #order ".m16n16k16.shared.bf16 {%0, %1, %2, %3}, [%4], %5;"          \
                     : "=r"(values[0]), "=r"(values[1]), "=r"(values[2]), "=r"(values[3])                                    \
                     : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))), "r"(step)                                 \
                     : "memory");                                                                                            \
    }
LOAD_SHARED(matrix_a, "a", row)
LOAD_SHARED(matrix_b, "b", row)
LOAD_SHARED(matrix_b, "b", col)
#undef LOAD_SHARED
#endif

// 16 rows of `N` columns in the registers of a warp.
template <class T, int N> struct Result {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> parts[N / 16];

    __device__ void clear() {
        for (int part = 0; part < N / 16; part++) wmma::fill_fragment(parts[part], 0.0f);
    }

    // += a b, both in shared memory, `a` of 16 rows of `DEPTH` elements, `b` of `DEPTH` rows of `N`, or of `N` rows of `DEPTH` if it stands transposed
    template <bool TRANSPOSED, int DEPTH> __device__ void add(const T *a, int a_step, const T *b, int b_step) {
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            wmma::fragment<wmma::matrix_a, 16, 16, 16, T, wmma::row_major> left;
            load_shared(left, a + k, a_step);
#pragma unroll
            for (int part = 0; part < N / 16; part++) {
                if constexpr (TRANSPOSED) {
                    wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::col_major> right;
                    load_shared(right, b + part * 16 * b_step + k, b_step);
                    wmma::mma_sync(parts[part], left, right, parts[part]);
                } else {
                    wmma::fragment<wmma::matrix_b, 16, 16, 16, T, wmma::row_major> right;
                    load_shared(right, b + k * b_step + part * 16, b_step);
                    wmma::mma_sync(parts[part], left, right, parts[part]);
                }
            }
        }
    }

    // Calls `visit(row, column, value, value of other at the same place)` for the elements of this thread.
    template <class F> __device__ void with(const Places<T> &places, const Result &other, F visit) {
#pragma unroll
        for (int part = 0; part < N / 16; part++)
#pragma unroll
            for (int i = 0; i < places.index.num_elements; i++) {
                int place = static_cast<int>(places.index.x[i]);
                visit(place / 16, part * 16 + place % 16, parts[part].x[i], other.parts[part].x[i]);
            }
    }

    template <class F> __device__ void each(const Places<T> &places, F visit) {
        with(places, *this, [&](int row, int column, float &value, float) { visit(row, column, value); });
    }
};

template <int N> struct Result<float, N> {
    float values[N / 2];

    __device__ void clear() {
        for (int i = 0; i < N / 2; i++) values[i] = 0.0f;
    }

    template <bool TRANSPOSED, int DEPTH> __device__ void add(const float *a, int a_step, const float *b, int b_step) {
        for (int k = 0; k < DEPTH; k++)
#pragma unroll
            for (int i = 0; i < N / 2; i++) {
                int place = i * 32 + threadIdx.x % 32, row = place / N, column = place % N;
                values[i] += a[row * a_step + k] * (TRANSPOSED ? b[column * b_step + k] : b[k * b_step + column]);
            }
    }

    template <class F> __device__ void with(const Places<float> &, const Result &other, F visit) {
#pragma unroll
        for (int i = 0; i < N / 2; i++) {
            int place = i * 32 + threadIdx.x % 32;
            visit(place / N, place % N, values[i], other.values[i]);
        }
    }

    template <class F> __device__ void each(const Places<float> &places, F visit) {
        with(places, *this, [&](int row, int column, float &value, float) { visit(row, column, value); });
    }
};

// `count` rows of `D` elements to shared memory and zeros in the other rows of the tile, by all threads of the block.
template <class T, int D> __device__ void load_tile(T *tile, const T *from, int count, int row_step) {
    constexpr int WIDTH = 8; // elements in 16 bytes
    for (int i = threadIdx.x; i < Sizes<T, D>::ROWS * (D / WIDTH); i += blockDim.x) {
        int row = i / (D / WIDTH), column = i % (D / WIDTH) * WIDTH;
        uint4 values = {0, 0, 0, 0};
        if (row < count) values = *reinterpret_cast<const uint4 *>(from + (long long)row * row_step + column);
        *reinterpret_cast<uint4 *>(tile + row * Sizes<T, D>::STEP + column) = values;
    }
}

template <int D> __device__ void load_floats(float *tile, const float *from, int count, int row_step) {
    for (int i = threadIdx.x; i < Sizes<float, D>::ROWS * D; i += blockDim.x) {
        int row = i / D, column = i % D;
        tile[row * Sizes<float, D>::STEP + column] = row < count ? from[(long long)row * row_step + column] : 0.0f;
    }
}

template <class T, int D> struct Load {
    static __device__ void tile(T *tile, const T *from, int count, int row_step) {
        load_tile<T, D>(tile, from, count, row_step);
    }
};
template <int D> struct Load<float, D> {
    static __device__ void tile(float *tile, const float *from, int count, int row_step) {
        load_floats<D>(tile, from, count, row_step);
    }
};
