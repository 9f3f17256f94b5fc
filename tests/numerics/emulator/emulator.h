// Runs CUDA kernels on the CPU. The threads of a block are fibers that take turns at barriers and shuffles, in ascending or
// descending order, so that a missing barrier changes the result in one of them; blocks run one after the other. Shared memory
// holds NaN at the start of a block. What a graphics processor does in bulk (tensor cores) every thread of a warp computes.
#pragma once
#include <cmath>
#include <utility>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

struct dim3 {
    unsigned x, y, z;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace emulator {

// An asynchronous copy that nobody has waited for.
struct Copy {
    void *to;
    const void *from;
    size_t size;
};

struct Thread {
    dim3 index;
    unsigned number; // in the block
    std::vector<Copy> copies;
    std::vector<size_t> batches; // ends of those that are together
};

extern Thread *current;
extern dim3 grid, block_index, block;
extern unsigned char *shared;
extern bool is_descending;

[[noreturn]] void fail(const std::string &message);

void block_barrier();
void warp_barrier();

// Every thread of the warp hands in a value and gets that of thread `lane` of its warp.
const void *exchange(const void *value, size_t size, unsigned lane);

// Calls a kernel with the arguments at these addresses, as a launch hands them over.
using Body = void (*)(void *const *);

struct Kernel {
    Body body;
    size_t argument_count;
};

// The kernel of a name; null if there is none.
const Kernel *find_kernel(const std::string &name);

// Runs all blocks of a launch, one after the other.
void run(const Kernel &kernel, dim3 grid, dim3 block, size_t shared_bytes, void *const *arguments, bool descending);

struct Registration {
    Registration(const char *name, Kernel kernel);
};

template <class T> T read(const void *from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void *const *arguments, std::index_sequence<I...>) {
    kernel(read<A>(arguments[I])...);
}

template <class... A> void call(void (*kernel)(A...), void *const *arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>());
}

template <class... A> constexpr size_t count(void (*)(A...)) { return sizeof...(A); }

} // namespace emulator

#define EXPORT(kernel)                                                                                      \
    static emulator::Registration kernel##_registration(                                                    \
        #kernel, {[](void *const *arguments) { emulator::call(kernel, arguments); }, emulator::count(kernel)});

#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(emulator::shared)

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __restrict__
#define __launch_bounds__(...)
// Blocks run one after the other.
#define __shared__ static

#define threadIdx (emulator::current->index)
#define blockIdx (emulator::block_index)
#define blockDim (emulator::block)
#define gridDim (emulator::grid)

inline void __syncthreads() { emulator::block_barrier(); }
inline void __syncwarp() { emulator::warp_barrier(); }

template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
    T found;
    unsigned lane = emulator::current->number % 32;
    std::memcpy(&found, emulator::exchange(&value, sizeof value, lane ^ mask), sizeof found);
    emulator::warp_barrier();
    return found;
}

template <class T> T __shfl_sync(unsigned, T value, int lane) {
    T found;
    std::memcpy(&found, emulator::exchange(&value, sizeof value, lane), sizeof found);
    emulator::warp_barrier();
    return found;
}

template <class T> T atomicAdd(T *place, T value) {
    T old = *place;
    *place += value;
    return old;
}

// Blocks run one after the other.
inline void __threadfence() {}
template <class T> T __ldcg(const T *place) { return *place; }

inline int atomicMin(int *place, int value) {
    int old = *place;
    *place = value < old ? value : old;
    return old;
}

inline int __float_as_int(float value) {
    int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float x, float y) { return x / y; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
