// Log-probability of a target and entropy under softmax(logits / temperature), one row of logits a block. With z = logits /
// temperature, m their maximum, s = sum exp(z - m) and t = sum exp(z - m) (z - m), log-sum-exp is m + log s and the entropy
// log s - t / s. Where a row names the ids it allows, the others have no part in it.
#include "common.cuh"

// Maximum, sum and weighted sum of what a thread has seen.
struct Sums {
    float top, sum, weighted;

    __device__ void add(float z) {
        if (z > top) {
            scale_to(z);
            top = z;
        }
        float power = __expf(z - top);
        sum += power;
        weighted += power * (z - top);
    }

    // exp(z - new) (z - new) = exp(old - new) exp(z - old) ((z - old) + (old - new))
    __device__ void scale_to(float new_top) {
        if (sum > 0.0f) {
            float factor = __expf(top - new_top);
            weighted = factor * (weighted + sum * (top - new_top));
            sum *= factor;
        }
    }

    __device__ void merge(float other_top, float other_sum, float other_weighted) {
        if (other_sum == 0.0f) return;
        Sums other = {other_top, other_sum, other_weighted};
        float highest = fmaxf(top, other_top);
        scale_to(highest);
        other.scale_to(highest);
        top = highest;
        sum += other.sum;
        weighted += other.weighted;
    }
};

extern "C" __global__ void token_scores(
    const float *logits, const unsigned *targets, const unsigned *ends, const unsigned *allowed, float *log_probs,
    float *entropies, float *log_sums, int vocab, float inverse_temperature) {
    __shared__ float tops[32], sums[32], weights[32];
    int row = blockIdx.x;
    const float *own = logits + (long long)row * vocab;
    unsigned first = ends[row], count = ends[row + 1] - first;
    Sums found = {-INFINITE, 0.0f, 0.0f};
    if (count > 0) {
        for (unsigned i = threadIdx.x; i < count; i += blockDim.x) found.add(own[allowed[first + i]] * inverse_temperature);
    } else {
        for (int i = threadIdx.x; i < vocab; i += blockDim.x) found.add(own[i] * inverse_temperature);
    }
    for (int step = 16; step > 0; step >>= 1) {
        float top = __shfl_xor_sync(EVERY_THREAD, found.top, step);
        float sum = __shfl_xor_sync(EVERY_THREAD, found.sum, step);
        float weighted = __shfl_xor_sync(EVERY_THREAD, found.weighted, step);
        found.merge(top, sum, weighted);
    }
    int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 0) tops[warp] = found.top, sums[warp] = found.sum, weights[warp] = found.weighted;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (unsigned other = 1; other < blockDim.x / 32; other++) found.merge(tops[other], sums[other], weights[other]);
        float log_sum = logf(found.sum);
        log_probs[row] = own[targets[row]] * inverse_temperature - found.top - log_sum;
        entropies[row] = log_sum - found.weighted / found.sum;
        log_sums[row] = found.top + log_sum;
    }
}
EXPORT(token_scores)

// dL/dlogit_j = (dL/dlogp ([j = target] - p_j) - dL/dH p_j (log p_j + H)) / temperature, 0 for what is not allowed.
template <class T>
__device__ void token_scores_backward(
    const float *logits, const unsigned *targets, const unsigned *ends, const unsigned *allowed, const float *log_sums,
    const float *entropies, const float *of_log_probs, const float *of_entropies, T *of_logits, int vocab,
    float inverse_temperature) {
    int row = blockIdx.x;
    const float *own = logits + (long long)row * vocab;
    T *out = of_logits + (long long)row * vocab;
    unsigned first = ends[row], count = ends[row + 1] - first;
    int target = targets[row];
    float log_sum = log_sums[row], entropy = entropies[row];
    float of_log_prob = of_log_probs[row], of_entropy = of_entropies[row];
    auto gradient = [&](int id) {
        float log_prob = own[id] * inverse_temperature - log_sum;
        float pull = __expf(log_prob) * (of_log_prob + of_entropy * (log_prob + entropy));
        return narrow<T>(((id == target ? of_log_prob : 0.0f) - pull) * inverse_temperature);
    };
    if (count > 0) {
        for (int i = threadIdx.x; i < vocab; i += blockDim.x) out[i] = narrow<T>(0.0f);
        __syncthreads();
        for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
            int id = allowed[first + i];
            out[id] = gradient(id);
        }
    } else {
        for (int i = threadIdx.x; i < vocab; i += blockDim.x) out[i] = gradient(i);
    }
}

#define KERNELS(T, type)                                                                                                     \
    extern "C" __global__ void token_scores_backward_##type(                                                                 \
        const float *logits, const unsigned *targets, const unsigned *ends, const unsigned *allowed, const float *log_sums,  \
        const float *entropies, const float *of_log_probs, const float *of_entropies, T *of_logits, int vocab,               \
        float inverse_temperature) {                                                                                         \
        token_scores_backward<T>(                                                                                            \
            logits, targets, ends, allowed, log_sums, entropies, of_log_probs, of_entropies, of_logits, vocab,               \
            inverse_temperature);                                                                                            \
    }                                                                                                                        \
    EXPORT(token_scores_backward_##type)

KERNELS(float, f32)
KERNELS(bf16, bf16)
KERNELS(f16, f16)
