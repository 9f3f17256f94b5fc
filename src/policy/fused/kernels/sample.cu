// Draws tokens from rows of logits, one draw a block: temperature, the ids that are allowed, top-k, top-p, min-p, as
// `src/policy/sampling.rs` does it. A row of `draws` is: row of logits, first of the allowed ids in `allowed`, their count or
// `EVERY_ID`, and a uniform number below 1 as the upper and the lower 32 bits of an integer of 53. A row of `out` is the bits of the
// token, and its log-probability before anything is cut; infinite if no logit is finite, and then the token is the first one.
// `tokens` are the same tokens, for whoever goes on with them on the device.
//
// Without cuts, ids are drawn in their order from sums over blocks of them. With cuts they are drawn from the most probable
// downwards: what is kept is a beginning of this order, and so is known by its mass alone. Where a given mass ends is found digit
// by digit of the logits, from histograms of masses. Masses are integers, so that no sum depends on an order.
#include "common.cuh"

#define EVERY_ID 0xffffffffu
// Candidates of a sum; a thread of a warp has 8 of them.
#define BLOCK 256
// Values of a digit.
#define DIGITS 256
#define MAX_THREADS 512

typedef unsigned long long Mass;

// What all threads of a block know of a draw.
template <class T> struct Candidates {
    const T *logits;
    const unsigned *ids; // null for all
    int count, vocab;
    float scale;

    __device__ unsigned id(int index) const { return ids ? ids[index] : index; }
    // A logit over the temperature; what is not finite is impossible.
    __device__ float at(int index) const {
        if (index >= count) return -INFINITE;
        unsigned own = id(index);
        if (own >= static_cast<unsigned>(vocab)) return -INFINITE;
        float value = wide(logits[own]);
        return fabsf(value) < INFINITE ? value * scale : -INFINITE;
    }
};

__device__ __forceinline__ float warp_max(float x) {
    for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(EVERY_THREAD, x, step));
    return x;
}

// An integer in the order of the numbers, and back.
__device__ __forceinline__ unsigned key_of(float x) {
    unsigned bits = __float_as_int(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(unsigned key) {
    return __int_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The weight of a candidate that is so far below the highest one.
__device__ __forceinline__ Mass mass_of(float below) { return static_cast<Mass>(expf(-below) * 1099511627776.0f); }

// Eighths of a nat below the highest logit, the last one without an end: the first digit, as exponents of floats are too few.
__device__ __forceinline__ int step_of(float below) { return below < 31.875f ? static_cast<int>(below * 8.0f) : DIGITS - 1; }

// Where a mass, or a count, ends among candidates from the most probable downwards.
struct Place {
    unsigned key;  // of the logit
    Mass own;      // mass of one candidate with this logit
    Mass left;     // of the mass, or the count, among the candidates with this logit
    Mass before;   // mass of those above
};

// What is looked for.
enum Wanted {
    COUNT,    // the candidate before which there are `share`
    MASS,     // the one at `share` of the mass of all, but of `most` at most
    LAST_MASS // the last one before which there is less than `share` of the mass
};

template <class T>
__device__ __noinline__ Place find(const Candidates<T> &candidates, float top, Wanted wanted, double share, Mass most) {
    __shared__ unsigned counts[DIGITS];
    __shared__ Mass masses[DIGITS];
    __shared__ Mass left, before;
    __shared__ unsigned digit;
    unsigned key = 0;
    int step = 0;
#pragma unroll 1
    for (int level = 0; level < 5; level++) {
        for (int i = threadIdx.x; i < DIGITS; i += blockDim.x) counts[i] = 0, masses[i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < candidates.count; i += blockDim.x) {
            float value = candidates.at(i), below = top - value;
            unsigned own = key_of(value);
            int own_step = step_of(below), known = 8 * (level - 1); // bits of the key
            if (level > 0 && own_step != step) continue;
            if (level > 1 && own >> (32 - known) != key) continue;
            unsigned place = level == 0 ? DIGITS - 1 - own_step : own >> (24 - known) & (DIGITS - 1);
            atomicAdd(&counts[place], 1u);
            Mass mass = mass_of(below);
            if (mass > 0) atomicAdd(&masses[place], mass);
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            if (level == 0) {
                Mass all = 0;
                for (int i = 0; i < DIGITS; i++) all += masses[i];
                Mass among = min(most, all);
                double end = wanted == COUNT ? share : share * among;
                if (wanted == LAST_MASS) end = fmax(ceil(end) - 1.0, 0.0);
                left = static_cast<Mass>(end);
                if (wanted != COUNT) left = min(left, among - 1);
                before = 0;
            }
            Mass rest = left;
            int place = DIGITS - 1;
            for (; place > 0; place--) {
                Mass amount = wanted == COUNT ? counts[place] : masses[place];
                if (rest < amount) break;
                rest -= amount;
                before += masses[place];
            }
            left = rest;
            digit = place;
        }
        __syncthreads();
        if (level == 0) step = DIGITS - 1 - digit;
        else key = key << 8 | digit;
        // `digit` is written again behind two barriers.
    }
    return {key, mass_of(top - value_of(key)), left, before};
}

// The index of the candidate with this logit that has so many before it.
template <class T> __device__ int nth(const Candidates<T> &candidates, unsigned key, unsigned number) {
    __shared__ unsigned counts[MAX_THREADS];
    __shared__ int found;
    int part = (candidates.count + blockDim.x - 1) / blockDim.x, first = threadIdx.x * part;
    int end = min(candidates.count, first + part);
    unsigned own = 0;
    for (int i = first; i < end; i++) own += key_of(candidates.at(i)) == key;
    counts[threadIdx.x] = own;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();
    unsigned earlier = 0;
    for (unsigned other = 0; other < threadIdx.x; other++) earlier += counts[other];
    if (earlier <= number && number < earlier + own) {
        for (int i = first; i < end; i++) {
            if (key_of(candidates.at(i)) == key && earlier++ == number) found = i;
        }
    }
    __syncthreads();
    return found;
}

// Walks through weights until so much is used up; what is over at the end belongs to the last one that weighs anything.
template <class F> __device__ int walk(int first, int end, double &left, F weight) {
    int found = first;
    for (int i = first; i < end; i++) {
        double own = weight(i);
        if (!(own > 0.0)) continue;
        found = i;
        if (left < own) break;
        left -= own;
    }
    return found;
}

template <class T>
__device__ void sample(
    const T *logits, const unsigned *draws, const unsigned *allowed, float *out, unsigned *tokens, int vocab, float scale,
    int is_greedy, int top_k, float top_p, float min_p_log) {
    const unsigned *draw = draws + blockIdx.x * 5;
    bool is_free = draw[2] == EVERY_ID;
    const T *own = logits + (long long)draw[0] * vocab;
    Candidates<T> candidates = {own, is_free ? nullptr : allowed + draw[1], is_free ? vocab : static_cast<int>(draw[2]), vocab, scale};
    double number = (draw[3] * 4294967296.0 + draw[4]) / 9007199254740992.0;
    int blocks = (candidates.count + BLOCK - 1) / BLOCK;
    DYNAMIC_SHARED(double, weights); // [blocks], and behind them the highest logit of each
    float *tops = reinterpret_cast<float *>(weights + blocks);
    __shared__ double sums[32];
    __shared__ float highest[32];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;

    // The next values are on their way while these are added up.
    float next[BLOCK / 32];
    auto load = [&](int block) {
#pragma unroll
        for (int i = 0; i < BLOCK / 32; i++) next[i] = candidates.at(block * BLOCK + i * 32 + lane);
    };
    load(warp);
    for (int block = warp; block < blocks; block += warps) {
        float values[BLOCK / 32], top = -INFINITE, sum = 0.0f;
#pragma unroll
        for (int i = 0; i < BLOCK / 32; i++) {
            values[i] = next[i];
            top = fmaxf(top, values[i]);
        }
        load(block + warps);
        top = warp_max(top);
#pragma unroll
        for (int i = 0; i < BLOCK / 32; i++) sum += top > -INFINITE ? expf(values[i] - top) : 0.0f;
        sum = warp_sum(sum);
        if (lane == 0) weights[block] = sum, tops[block] = top;
    }
    __syncthreads();
    float top = -INFINITE;
    for (int block = threadIdx.x; block < blocks; block += blockDim.x) top = fmaxf(top, tops[block]);
    top = warp_max(top);
    if (lane == 0) highest[warp] = top;
    __syncthreads();
    for (int other = 0; other < warps; other++) top = fmaxf(top, highest[other]);
    if (top == -INFINITE) { // in all threads
        if (threadIdx.x == 0) {
            tokens[blockIdx.x] = candidates.count > 0 ? candidates.id(0) : 0;
            out[blockIdx.x * 2] = __int_as_float(tokens[blockIdx.x]);
            out[blockIdx.x * 2 + 1] = INFINITE;
        }
        return;
    }
    for (int block = threadIdx.x; block < blocks; block += blockDim.x) weights[block] *= expf(tops[block] - top);
    __syncthreads();
    // Each thread of the first warp has blocks beside each other.
    int part = (blocks + 31) / 32;
    if (warp == 0) {
        double sum = 0.0;
        for (int block = lane * part; block < min(blocks, (lane + 1) * part); block++) sum += weights[block];
        sums[lane] = sum;
    }
    __syncthreads();
    double total = 0.0;
    for (int other = 0; other < 32; other++) total += sums[other];
    __syncthreads(); // the sums are replaced below
    float log_sum = top + logf(static_cast<float>(total));

    __shared__ int chosen;
    if (is_greedy) {
        // The first of the highest.
        if (threadIdx.x == 0) chosen = candidates.count;
        __syncthreads();
        for (int block = warp; block < blocks; block += warps) {
            if (tops[block] != top) continue; // in a whole warp
            for (int i = lane; i < BLOCK; i += 32) {
                if (candidates.at(block * BLOCK + i) == top) atomicMin(&chosen, block * BLOCK + i);
            }
        }
        __syncthreads();
    } else if (top_k > 0 || top_p < 1.0f || min_p_log > -INFINITE) {
        // The mass of what each cut keeps.
        __shared__ Mass over;
        Mass kept = ~0ull;
        if (top_k > 0 && top_k < candidates.count) {
            Place last = find(candidates, top, COUNT, top_k - 1, kept);
            kept = last.before + (last.left + 1) * last.own;
        }
        if (top_p < 1.0f) {
            Place last = find(candidates, top, LAST_MASS, top_p, ~0ull);
            kept = min(kept, last.before + (last.left / last.own + 1) * last.own);
        }
        if (min_p_log > -INFINITE) {
            if (threadIdx.x == 0) over = 0;
            __syncthreads();
            float floor = top + min_p_log;
            Mass mine = 0;
            for (int i = threadIdx.x; i < candidates.count; i += blockDim.x) {
                float value = candidates.at(i);
                if (value >= floor) mine += mass_of(top - value);
            }
            atomicAdd(&over, mine);
            __syncthreads();
            kept = min(kept, over);
        }
        Place drawn = find(candidates, top, MASS, number, kept);
        int index = nth(candidates, drawn.key, drawn.left / drawn.own);
        if (threadIdx.x == 0) chosen = index;
    } else if (warp == 0) {
        // From parts of blocks to a block, to eight candidates, to one of them.
        double left = number * total;
        int own_part = walk(0, 32, left, [&](int other) { return sums[other]; });
        int block = walk(own_part * part, min(blocks, (own_part + 1) * part), left, [&](int block) { return weights[block]; });
        int first = block * BLOCK + lane * 8;
        auto weight = [&](int index) { return static_cast<double>(expf(candidates.at(index) - top)); };
        double sum = 0.0;
        for (int index = first; index < first + 8; index++) sum += weight(index);
        __syncwarp(); // all sums have been read
        sums[lane] = sum;
        __syncwarp();
        int own_lane = walk(0, 32, left, [&](int other) { return sums[other]; });
        first = block * BLOCK + own_lane * 8;
        int index = walk(first, first + 8, left, weight);
        if (lane == 0) chosen = index;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        tokens[blockIdx.x] = candidates.id(chosen);
        out[blockIdx.x * 2] = __int_as_float(tokens[blockIdx.x]);
        out[blockIdx.x * 2 + 1] = candidates.at(chosen) - log_sum;
    }
}

#define KERNELS(T, type)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS) sample_##type(                                                 \
        const T *logits, const unsigned *draws, const unsigned *allowed, float *out, unsigned *tokens, int vocab,            \
        float scale, int is_greedy, int top_k, float top_p, float min_p_log) {                                               \
        sample<T>(logits, draws, allowed, out, tokens, vocab, scale, is_greedy, top_k, top_p, min_p_log);                    \
    }                                                                                                                        \
    EXPORT(sample_##type)

KERNELS(float, f32)
KERNELS(bf16, bf16)
KERNELS(f16, f16)
