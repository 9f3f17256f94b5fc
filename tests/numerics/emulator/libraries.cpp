// The products of cuBLAS as plain loops, with sums in `f32`, and what else is asked of CUDA's libraries at the start.
#include "driver.h"

#include "cuda_bf16.h"
#include "cuda_fp16.h"

#include <vector>

using emulator::fail;

namespace {

constexpr double most_multiply_adds = 1e11;

// The library's numbers for types.
enum Type { F32 = 0, F16 = 2, BF16 = 14 };

size_t size_of(int type) {
    if (type != F32 && type != F16 && type != BF16) fail("a product of type " + std::to_string(type));
    return type == F32 ? 4 : 2;
}

float element(const unsigned char *matrix, int type, size_t index) {
    if (type == F32) return reinterpret_cast<const float *>(matrix)[index];
    if (type == F16) return __half2float(reinterpret_cast<const __half *>(matrix)[index]);
    return __bfloat162float(reinterpret_cast<const __nv_bfloat16 *>(matrix)[index]);
}

void set(unsigned char *matrix, int type, size_t index, float value) {
    if (type == F32) reinterpret_cast<float *>(matrix)[index] = value;
    else if (type == F16) reinterpret_cast<__half *>(matrix)[index] = __float2half(value);
    else reinterpret_cast<__nv_bfloat16 *>(matrix)[index] = __float2bfloat16(value);
}

struct Matrix {
    uint64_t address;
    int type;
    int step;
    bool is_transposed;

    // `rows` by `columns` after it is turned around; the elements of a column of what is stored follow each other.
    std::vector<float> read(int rows, int columns) const {
        int stored_rows = is_transposed ? columns : rows, stored_columns = is_transposed ? rows : columns;
        if (step < stored_rows) fail("a leading dimension of " + std::to_string(step) + " for columns of " + std::to_string(stored_rows));
        size_t elements = size_t(step) * (stored_columns - 1) + stored_rows;
        const unsigned char *matrix = driver::memory_at(address, elements * size_of(type), "a factor");
        std::vector<float> values(size_t(rows) * columns);
        for (int row = 0; row < rows; row++)
            for (int column = 0; column < columns; column++)
                values[size_t(row) * columns + column] =
                    element(matrix, type, is_transposed ? size_t(row) * step + column : size_t(column) * step + row);
        return values;
    }
};

// `C = alpha A B + beta C`, `m` by `n`, with sums over `k`; columns first.
void multiply(int m, int n, int k, float alpha, Matrix a, Matrix b, float beta, Matrix c) {
    std::lock_guard<std::recursive_mutex> guard(driver::mutex);
    driver::count("products", 1);
    // What only measures the device would take hours here.
    if (driver::is_skipping || double(m) * n * k > most_multiply_adds) return;
    if (m <= 0 || n <= 0 || k <= 0) fail("an empty product");
    std::vector<float> left = a.read(m, k), right = b.read(k, n);
    size_t elements = size_t(c.step) * (n - 1) + m;
    if (c.step < m) fail("a leading dimension of the result");
    unsigned char *out = driver::memory_at(c.address, elements * size_of(c.type), "a product");
    std::vector<float> sums(n);
    for (int row = 0; row < m; row++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int index = 0; index < k; index++) {
            float factor = left[size_t(row) * k + index];
            for (int column = 0; column < n; column++) sums[column] += factor * right[size_t(index) * n + column];
        }
        for (int column = 0; column < n; column++) {
            size_t at = size_t(column) * c.step + row;
            float before = beta == 0.0f ? 0.0f : beta * element(out, c.type, at);
            set(out, c.type, at, alpha * sums[column] + before);
        }
    }
}

// Of the types that are asked for here, sums in `f32` only: 68 is CUBLAS_COMPUTE_32F.
void check_compute(int type) {
    if (type != 68) fail("a product that is computed as " + std::to_string(type));
}

} // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cublasCreate_v2(void **handle) { return *handle = new void *(), 0; }
API cublasDestroy_v2(void *) { return 0; }
API cublasSetStream_v2(void *, void *queue) { return driver::check_queue(queue, "cuBLAS"), 0; }
API cublasGemmEx(
    void *, int turn_a, int turn_b, int m, int n, int k, const float *alpha, uint64_t a, int type_a, int step_a, uint64_t b, int type_b,
    int step_b, const float *beta, uint64_t c, int type_c, int step_c, int compute, int) {
    check_compute(compute);
    driver::check_context("a product");
    multiply(m, n, k, *alpha, {a, type_a, step_a, turn_a == 1}, {b, type_b, step_b, turn_b == 1}, *beta, {c, type_c, step_c, false});
    return 0;
}
API cublasGemmStridedBatchedEx(
    void *, int turn_a, int turn_b, int m, int n, int k, const float *alpha, uint64_t a, int type_a, int step_a, long long batch_a,
    uint64_t b, int type_b, int step_b, long long batch_b, const float *beta, uint64_t c, int type_c, int step_c, long long batch_c,
    int batches, int compute, int) {
    check_compute(compute);
    driver::check_context("a product");
    for (int batch = 0; batch < batches; batch++)
        multiply(
            m, n, k, *alpha, {a + batch * batch_a * size_of(type_a), type_a, step_a, turn_a == 1},
            {b + batch * batch_b * size_of(type_b), type_b, step_b, turn_b == 1}, *beta,
            {c + batch * batch_c * size_of(type_c), type_c, step_c, false});
    return 0;
}
API curandCreateGenerator(void **generator, int) { return *generator = new int, 0; }
API curandDestroyGenerator(void *generator) { return delete static_cast<int *>(generator), 0; }
API curandSetPseudoRandomGeneratorSeed(void *, unsigned long long) { return 0; }
API curandSetStream(void *, void *) { return 0; }

// Kernels that candle is linked with; they are not launched here.
extern "C" __attribute__((visibility("default"))) void **__cudaRegisterFatBinary(void *) {
    static void *handle;
    return &handle;
}
#define NOTHING(name) extern "C" __attribute__((visibility("default"))) void name() {}
NOTHING(__cudaRegisterFatBinaryEnd)
NOTHING(__cudaUnregisterFatBinary)
NOTHING(__cudaRegisterFunction)
NOTHING(__cudaRegisterVar)

// What the program is linked with and does not call.
#define MISSING(name) \
    extern "C" __attribute__((visibility("default"))) void name() { fail("the emulator has no `" #name "`"); }
MISSING(__cudaGetKernel)
MISSING(__cudaLaunchKernel_ptsz)
MISSING(__cudaPopCallConfiguration)
MISSING(__cudaPushCallConfiguration)
MISSING(cublasDgemmStridedBatched)
MISSING(cudaFuncSetAttribute)
MISSING(cudaGetDevice)
MISSING(cuCtxDestroy_v2)
MISSING(cuMemcpyPeerAsync)
MISSING(cuModuleLoad)
