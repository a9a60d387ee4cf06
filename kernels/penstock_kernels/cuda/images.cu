// Images of bytes, to what networks take: resized, normalised, a plane a channel. One thread makes one pixel.

struct Taps { int start; int count; float centre; float reach; };

// Which of `size` pixels in a line make up the one at `at` of the `resized` ones.
__device__ __forceinline__ Taps taps_of(int size, int resized, int at, int antialias) {
  double scale = (double)size / resized;
  double reach = antialias && scale > 1 ? scale : 1;
  double centre = (at + 0.5) * scale;
  int low = min(max((int)floor(centre - reach + 0.5), 0), size - 1);
  int high = max(min((int)floor(centre + reach + 0.5), size), low + 1);
  // from the first of them on: what is small has all its digits in FP32
  return {low, high - low, (float)(centre - low - 0.5), (float)reach};
}

__device__ __forceinline__ float weight(const Taps& taps, int k) {
  return taps.count == 1 ? 1 : fmaxf(1 - fabsf(k - taps.centre) / taps.reach, 0);
}

template <typename T>
__device__ __forceinline__ void preprocess(const unsigned char* images, long long image_pitch, long long line_pitch,
    int count, int channels, int height, int width, int resized_height, int resized_width, int top, int left,
    int out_height, int out_width, int antialias, float4 factor, float4 added, T* out) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  long long plane = (long long)out_height * out_width;
  if (i >= count * plane) return;
  long long image = i / plane;
  int y = (int)(i % plane / out_width), x = (int)(i % out_width);
  Taps rows = taps_of(height, resized_height, top + y, antialias);
  Taps columns = taps_of(width, resized_width, left + x, antialias);
  float sums[4] = {0, 0, 0, 0};
  float row_total = 0, column_total = 0;
  for (int k = 0; k < columns.count; k++) column_total += weight(columns, k);
  for (int j = 0; j < rows.count; j++) {
    float row_weight = weight(rows, j);
    row_total += row_weight;
    const unsigned char* line =
        images + image * image_pitch + (rows.start + j) * line_pitch + (long long)columns.start * channels;
    for (int k = 0; k < columns.count; k++) {
      float w = row_weight * weight(columns, k);
      for (int c = 0; c < channels; c++) sums[c] += w * line[k * channels + c];
    }
  }
  const float factors[4] = {factor.x, factor.y, factor.z, factor.w};
  const float adds[4] = {added.x, added.y, added.z, added.w};
  float whole = row_total * column_total;
  T* first = out + image * channels * plane + (long long)y * out_width + x;
  for (int c = 0; c < channels; c++) first[c * plane] = from_float<T>(sums[c] / whole * factors[c] + adds[c]);
}

#define PREPROCESS(NAME, T)                                                                                           \
  extern "C" __global__ void NAME(const unsigned char* images, long long image_pitch, long long line_pitch, int count,  \
      int channels, int height, int width, int resized_height, int resized_width, int top, int left, int out_height,   \
      int out_width, int antialias, float f0, float f1, float f2, float f3, float a0, float a1, float a2, float a3,       \
      T* out) {                                                                                                        \
    preprocess<T>(images, image_pitch, line_pitch, count, channels, height, width, resized_height, resized_width, top, \
        left, out_height, out_width, antialias, make_float4(f0, f1, f2, f3), make_float4(a0, a1, a2, a3), out);           \
  }

PREPROCESS(preprocess_fp32, float)
PREPROCESS(preprocess_fp16, __half)
PREPROCESS(preprocess_bf16, __nv_bfloat16)
