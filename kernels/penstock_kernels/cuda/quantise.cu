// Numbers in 8 bits. A tensor is `channels` runs of `inner` elements, again and again; each channel has a scale.

__device__ __forceinline__ long long index() { return blockIdx.x * (long long)blockDim.x + threadIdx.x; }

__device__ __forceinline__ signed char to_int8(float x, float scale, float zero_point) {
  float step = rintf(x / scale) + zero_point;
  // NaN is what fminf and fmaxf don't take
  return isnan(step) ? (signed char)zero_point : (signed char)fminf(fmaxf(step, -128), 127);
}

__device__ __forceinline__ unsigned char to_fp8(float x, __nv_fp8_interpretation_t kind) {
  return __nv_cvt_float_to_fp8(x, __NV_SATFINITE, kind);
}

__device__ __forceinline__ float from_fp8(unsigned char x, __nv_fp8_interpretation_t kind) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(x, kind)));
}

#define QUANTISE(SUFFIX, T)                                                                                          \
  extern "C" __global__ void quantise_int8_##SUFFIX(const T* x, const float* scale, const signed char* zero_point,   \
      long long size, long long channels, long long inner, signed char* out) {                                       \
    long long i = index();                                                                                           \
    if (i >= size) return;                                                                                           \
    long long channel = i / inner % channels;                                                                        \
    out[i] = to_int8(to_float(x[i]), scale[channel], zero_point ? zero_point[channel] : 0);                          \
  }                                                                                                                  \
  extern "C" __global__ void quantise_e4m3_##SUFFIX(const T* x, const float* scale, const signed char*,              \
      long long size, long long channels, long long inner, unsigned char* out) {                                     \
    long long i = index();                                                                                           \
    if (i < size) out[i] = to_fp8(to_float(x[i]) / scale[i / inner % channels], __NV_E4M3);                          \
  }                                                                                                                  \
  extern "C" __global__ void quantise_e5m2_##SUFFIX(const T* x, const float* scale, const signed char*,              \
      long long size, long long channels, long long inner, unsigned char* out) {                                     \
    long long i = index();                                                                                           \
    if (i < size) out[i] = to_fp8(to_float(x[i]) / scale[i / inner % channels], __NV_E5M2);                          \
  }                                                                                                                  \
  extern "C" __global__ void absmax_##SUFFIX(const T* x, long long size, long long channels, long long inner,        \
      long long parts, float* out) {                                                                                 \
    absmax(x, size, channels, inner, parts, out);                                                                    \
  }

// The largest finite size of a channel, by `parts` blocks for each. FP32 that are not negative are in the order of their bits.
template <typename T>
__device__ __forceinline__ void absmax(const T* x, long long size, long long channels, long long inner, long long parts,
    float* out) {
  long long channel = blockIdx.x / parts, part = blockIdx.x % parts;
  long long own = size / channels;
  float most = 0;
  for (long long i = part * blockDim.x + threadIdx.x; i < own; i += parts * blockDim.x) {
    float value = fabsf(to_float(x[(i / inner * channels + channel) * inner + i % inner]));
    if (isfinite(value)) most = fmaxf(most, value);
  }
  for (int lanes = 16; lanes; lanes /= 2) most = fmaxf(most, __shfl_down_sync(0xffffffff, most, lanes));
  if (threadIdx.x % 32 == 0) atomicMax((int*)&out[channel], __float_as_int(most));
}

QUANTISE(fp32, float)
QUANTISE(fp16, __half)
QUANTISE(bf16, __nv_bfloat16)

extern "C" __global__ void clear(float* out, long long channels) {
  long long i = index();
  if (i < channels) out[i] = 0;
}

extern "C" __global__ void to_scale(float* out, long long channels, float largest) {
  long long i = index();
  if (i >= channels) return;
  float scale = out[i] / largest;
  out[i] = scale > 0 ? scale : 1;
}

extern "C" __global__ void dequantise_int8(const signed char* x, const float* scale, const signed char* zero_point,
    long long size, long long channels, long long inner, float* out) {
  long long i = index();
  if (i >= size) return;
  long long channel = i / inner % channels;
  out[i] = (x[i] - (zero_point ? zero_point[channel] : 0)) * scale[channel];
}

extern "C" __global__ void dequantise_e4m3(const unsigned char* x, const float* scale, const signed char*,
    long long size, long long channels, long long inner, float* out) {
  long long i = index();
  if (i < size) out[i] = from_fp8(x[i], __NV_E4M3) * scale[i / inner % channels];
}

extern "C" __global__ void dequantise_e5m2(const unsigned char* x, const float* scale, const signed char*,
    long long size, long long channels, long long inner, float* out) {
  long long i = index();
  if (i < size) out[i] = from_fp8(x[i], __NV_E5M2) * scale[i / inner % channels];
}
