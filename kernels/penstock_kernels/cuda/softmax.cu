// Softmax of rows and their largest elements, FP32. Grids end at some size: blocks go on to further rows themselves.

#define INFINITE __int_as_float(0x7f800000)

// The largest element so far, and the sum of exp(element - largest): a row's softmax needs one reading of it.
struct Sum {
  float most, total;
};

__device__ __forceinline__ Sum nothing() { return {-INFINITE, 0}; }

__device__ __forceinline__ void add(Sum& sum, float x) {
  if (x > sum.most) {
    sum.total = sum.total * expf(sum.most - x) + 1;
    sum.most = x;
  } else if (x != -INFINITE) {  // NaN comes here, and stays in the total
    sum.total += expf(x - sum.most);
  }
}

__device__ __forceinline__ Sum joined(Sum a, Sum b) {
  float most = fmaxf(a.most, b.most);
  // exp(-inf + inf) would be NaN
  float of_a = a.most == most ? a.total : a.total * expf(a.most - most);
  float of_b = b.most == most ? b.total : b.total * expf(b.most - most);
  return {most, of_a + of_b};
}

__device__ __forceinline__ Sum warp_joined(Sum sum) {
  for (int lanes = 16; lanes; lanes /= 2) {
    Sum other = {__shfl_xor_sync(~0u, sum.most, lanes), __shfl_xor_sync(~0u, sum.total, lanes)};
    sum = joined(sum, other);
  }
  return sum;
}

// The same for all threads of the block. `shared`: one for each warp.
__device__ Sum block_joined(Sum sum, Sum* shared) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  sum = warp_joined(sum);
  __syncthreads();  // the row before may still be read
  if (lane == 0) shared[warp] = sum;
  __syncthreads();
  return warp_joined(lane < blockDim.x / 32 ? shared[lane] : nothing());
}

// NaN for rows without a finite largest element.
__device__ __forceinline__ float total_of(Sum sum) {
  return fabsf(sum.most) < INFINITE ? sum.total : __int_as_float(0x7fffffff);
}

template <bool LOG>
__device__ __forceinline__ void write(const float* x, float* out, long long columns, Sum sum, int first, int step) {
  float total = total_of(sum);
  float scale = LOG ? logf(total) : 1 / total;
  for (long long i = first; i < columns; i += step)
    out[i] = LOG ? (x[i] - sum.most) - scale : expf(x[i] - sum.most) * scale;
}

template <bool LOG>
__device__ __forceinline__ void by_blocks(const float* x, float* out, long long rows, long long columns) {
  __shared__ Sum shared[32];
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* own = x + row * columns;
    Sum sum = nothing();
    for (long long i = threadIdx.x; i < columns; i += blockDim.x) add(sum, own[i]);
    sum = block_joined(sum, shared);
    write<LOG>(own, out + row * columns, columns, sum, threadIdx.x, blockDim.x);
  }
}

template <bool LOG>
__device__ __forceinline__ void by_warps(const float* x, float* out, long long rows, long long columns) {
  int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  long long step = gridDim.x * (long long)warps;
  for (long long row = blockIdx.x * (long long)warps + threadIdx.x / 32; row < rows; row += step) {
    const float* own = x + row * columns;
    Sum sum = nothing();
    for (long long i = lane; i < columns; i += 32) add(sum, own[i]);
    write<LOG>(own, out + row * columns, columns, warp_joined(sum), lane, 32);
  }
}

extern "C" __global__ void softmax_f32(const float* x, float* out, long long rows, long long columns) {
  by_blocks<false>(x, out, rows, columns);
}

extern "C" __global__ void softmax_f32_warp(const float* x, float* out, long long rows, long long columns) {
  by_warps<false>(x, out, rows, columns);
}

extern "C" __global__ void log_softmax_f32(const float* x, float* out, long long rows, long long columns) {
  by_blocks<true>(x, out, rows, columns);
}

extern "C" __global__ void log_softmax_f32_warp(const float* x, float* out, long long rows, long long columns) {
  by_warps<true>(x, out, rows, columns);
}

typedef unsigned long long Entry;

constexpr int ENTRIES = 1024;  // kept in shared memory: the best so far, and candidates. k <= 512

// Rank and index in one number, larger for what comes earlier: NaN last, of equal ranks the lower index. Never 0.
__device__ __forceinline__ Entry entry(float x, long long index) {
  unsigned bits = __float_as_uint(x + 0.0f);  // -0.0 becomes 0.0
  unsigned rank = x != x ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (Entry)rank << 32 | (0xffffffffu - (unsigned)index);
}

__device__ __forceinline__ long long index_of(Entry entry) { return 0xffffffffu - (unsigned)entry; }

// Bitonic, in descending order.
__device__ __noinline__ void sort(Entry* entries) {
#pragma unroll 1
  for (int size = 2; size <= ENTRIES; size *= 2)
#pragma unroll 1
    for (int stride = size / 2; stride; stride /= 2) {
      for (int i = threadIdx.x; i < ENTRIES / 2; i += blockDim.x) {
        int low = 2 * i - (i & (stride - 1)), high = low + stride;
        bool descending = !(low & size);
        Entry a = entries[low], b = entries[high];
        if (a < b == descending) {
          entries[low] = b;
          entries[high] = a;
        }
      }
      __syncthreads();
    }
}

// The row's k best into entries[0:k], in descending order. What isn't better than the worst of the best so far is passed
// over; the others are candidates, sorted when there is no room for another block's worth of them.
__device__ void select(const float* x, long long columns, int k, Entry* entries, int* count) {
  for (int i = threadIdx.x; i < ENTRIES; i += blockDim.x) entries[i] = 0;
  if (threadIdx.x == 0) *count = 0;
  __syncthreads();
  Entry worst = 0;
  for (long long start = 0; start < columns; start += blockDim.x) {
    long long i = start + threadIdx.x;
    Entry own = i < columns ? entry(x[i], i) : 0;
    if (own > worst) entries[atomicAdd(count, 1)] = own;
    __syncthreads();
    bool full = *count > ENTRIES - (int)blockDim.x;
    __syncthreads();  // all have read the count before one changes it
    if (full) {
      sort(entries);
      worst = entries[k - 1];
      for (int i = k + threadIdx.x; i < ENTRIES; i += blockDim.x) entries[i] = 0;
      if (threadIdx.x == 0) *count = k;
      __syncthreads();
    }
  }
  sort(entries);
}

template <bool PROBABILITIES>
__device__ __forceinline__ void best(
    const float* x, float* values, long long* indices, long long rows, long long columns, int k) {
  __shared__ Entry entries[ENTRIES];
  __shared__ int count;
  __shared__ Sum shared[32];
  for (long long row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* own = x + row * columns;
    Sum sum = nothing();
    if (PROBABILITIES) {
      for (long long i = threadIdx.x; i < columns; i += blockDim.x) add(sum, own[i]);
      sum = block_joined(sum, shared);
    }
    select(own, columns, k, entries, &count);
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
      long long index = index_of(entries[i]);
      indices[row * k + i] = index;
      values[row * k + i] = PROBABILITIES ? expf(own[index] - sum.most) / total_of(sum) : own[index];
    }
    __syncthreads();  // before the next row's entries are written
  }
}

extern "C" __global__ void top_k_f32(
    const float* x, float* values, long long* indices, long long rows, long long columns, int k) {
  best<false>(x, values, indices, rows, columns, k);
}

extern "C" __global__ void softmax_top_k_f32(
    const float* x, float* values, long long* indices, long long rows, long long columns, int k) {
  best<true>(x, values, indices, rows, columns, k);
}
