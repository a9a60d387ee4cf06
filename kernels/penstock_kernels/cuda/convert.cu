// Buffers of floats in other formats.

template <typename From, typename To>
__device__ __forceinline__ void convert(const From* x, To* out, long long size) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < size) out[i] = from_float<To>(to_float(x[i]));
}

extern "C" __global__ void fp16_to_fp32(const __half* x, float* out, long long size) { convert(x, out, size); }
extern "C" __global__ void bf16_to_fp32(const __nv_bfloat16* x, float* out, long long size) { convert(x, out, size); }
extern "C" __global__ void fp32_to_fp16(const float* x, __half* out, long long size) { convert(x, out, size); }
extern "C" __global__ void fp32_to_bf16(const float* x, __nv_bfloat16* out, long long size) { convert(x, out, size); }
