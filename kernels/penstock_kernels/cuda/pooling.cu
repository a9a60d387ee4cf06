// Means of tokens, FP32: a block for each text, a thread for each element of its vector.

__device__ double block_sum(double x) {
  __shared__ double shared[32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  __syncthreads();  // the text before may still be read
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  x = lane < warps ? shared[lane] : 0;
  for (int lanes = 16; lanes; lanes /= 2) x += __shfl_xor_sync(~0u, x, lanes);
  return x;
}

template <typename Mask>
__device__ __forceinline__ void masked_mean(
    const float* x, const Mask* mask, float* out, long long batch, long long tokens, long long width, int normalise) {
  for (long long row = blockIdx.x; row < batch; row += gridDim.x) {
    const float* vectors = x + row * tokens * width;
    const Mask* own = mask + row * tokens;
    float* written = out + row * width;
    long long count = 0;
    for (long long t = threadIdx.x; t < tokens; t += blockDim.x) count += own[t] != (Mask)0;
    double divisor = fmax(1.0, block_sum((double)count));
    double squares = 0;
    for (long long d = threadIdx.x; d < width; d += blockDim.x) {
      float sum = 0;
#pragma unroll 4
      for (long long t = 0; t < tokens; t++)
        if (own[t] != (Mask)0) sum += vectors[t * width + d];  // one answer for the whole block: no divergence
      squares += (double)sum * sum;
      written[d] = sum;
    }
    double length = sqrt(block_sum(squares));
    double scale = !normalise ? 1 / divisor : length != 0 ? 1 / length : 0;
    for (long long d = threadIdx.x; d < width; d += blockDim.x) written[d] = (float)(written[d] * scale);
  }
}

#define MASKED_MEAN(SUFFIX, MASK)                                                                                                \
  extern "C" __global__ void masked_mean_##SUFFIX(                                                                               \
      const float* x, const MASK* mask, float* out, long long batch, long long tokens, long long width, int normalise) {         \
    masked_mean(x, mask, out, batch, tokens, width, normalise);                                                                  \
  }

MASKED_MEAN(i64, long long)
MASKED_MEAN(i32, int)
MASKED_MEAN(u8, unsigned char)
MASKED_MEAN(f32, float)
