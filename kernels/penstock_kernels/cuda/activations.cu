// Functions of single elements.

extern "C" __global__ void sigmoid_f32(const float* x, float* out, long long size) {
  long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i >= size) return;
  float e = expf(-fabsf(x[i]));
  out[i] = x[i] >= 0 ? 1 / (1 + e) : e / (1 + e);
}
