// `nvcuda::wmma` for the emulator: every thread of a warp holds whole 16x16 matrices. The alignments that the hardware asks for
// are checked. Loads and stores wait for nobody, so that a barrier which is missing before them shows.
#pragma once
#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static_assert(M == 16 && N == 16 && K == 16);
    static constexpr int num_elements = 256;
    float x[256];
};

inline float widened(float x) { return x; }
inline float widened(__nv_bfloat16 x) { return __bfloat162float(x); }
inline float widened(__half x) { return __half2float(x); }

template <class F> void fill_fragment(F &fragment, float value) {
    for (float &x : fragment.x) x = value;
}

template <class T> void check(const T *from, unsigned step) {
    if (reinterpret_cast<uintptr_t>(from) % 32 != 0 || step * sizeof(T) % 16 != 0) {
        emulator::fail("a matrix for the tensor cores is not aligned");
    }
}

// Elements as a matrix of rows, whatever their order in memory.
template <class Use, class T, class Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout> &fragment, const T *from, unsigned step) {
    check(from, step);
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 16; column++) {
            bool is_transposed = std::is_same_v<Layout, col_major>;
            fragment.x[row * 16 + column] = widened(from[is_transposed ? column * step + row : row * step + column]);
        }
}

inline void load_matrix_sync(fragment<accumulator, 16, 16, 16, float> &fragment, const float *from, unsigned step, layout_t) {
    check(from, step);
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 16; column++) fragment.x[row * 16 + column] = from[row * step + column];
}

template <class T, class A, class B>
void mma_sync(
    fragment<accumulator, 16, 16, 16, float> &result, const fragment<matrix_a, 16, 16, 16, T, A> &a,
    const fragment<matrix_b, 16, 16, 16, T, B> &b, const fragment<accumulator, 16, 16, 16, float> &sum) {
    float found[256];
    std::memcpy(found, sum.x, sizeof found);
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 16; column++) found[row * 16 + column] += a.x[row * 16 + k] * b.x[k * 16 + column];
    std::memcpy(result.x, found, sizeof found);
}

} // namespace nvcuda::wmma
