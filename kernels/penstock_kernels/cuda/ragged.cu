// Rows of different lengths, as bits of any type: a thread for each element of the padded side, so that both sides are
// read and written in order.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A row's length, cut to what it is padded to.
__device__ __forceinline__ long long length_of(const long long* splits, long long row, long long size) {
  long long length = splits[row + 1] - splits[row];
  return length < size ? length : size;
}

template <typename T>
__device__ __forceinline__ void pack(
    const T* padded, T* flat, const long long* splits, long long rows, long long size, long long width) {
  long long elements = rows * size * width, step = gridDim.x * (long long)blockDim.x;
#pragma unroll 1
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < elements; i += step) {
    long long place = i / width, row = place / size, token = place % size;
    if (token < length_of(splits, row, size)) flat[(splits[row] + token) * width + i % width] = padded[i];
  }
}

// A mask's element, of any type that has 1, 2, 4 or 8 bytes: a kernel for each would take seconds to compile.
__device__ __forceinline__ void put(void* mask, long long place, u64 bits, int bytes) {
  if (bytes == 1) ((u8*)mask)[place] = (u8)bits;
  if (bytes == 2) ((u16*)mask)[place] = (u16)bits;
  if (bytes == 4) ((u32*)mask)[place] = (u32)bits;
  if (bytes == 8) ((u64*)mask)[place] = bits;
}

template <typename T>
__device__ __forceinline__ void pad(
    const T* flat, T* padded, void* mask, const long long* splits, long long rows, long long size, long long width,
    T fill, u64 one, int mask_bytes) {
  long long elements = rows * size * (width ? width : 1), step = gridDim.x * (long long)blockDim.x;
#pragma unroll 1
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < elements; i += step) {
    long long place = width ? i / width : i, row = place / size, token = place % size;
    bool inside = token < length_of(splits, row, size);
    if (width) padded[i] = inside ? flat[(splits[row] + token) * width + i % width] : fill;
    if (!width || i % width == 0) put(mask, place, inside ? one : 0, mask_bytes);
  }
}

#define ALL(BITS)                                                                                                                \
  extern "C" __global__ void pack_##BITS(                                                                                        \
      const u##BITS* padded, u##BITS* flat, const long long* splits, long long rows, long long size, long long width) {          \
    pack(padded, flat, splits, rows, size, width);                                                                               \
  }                                                                                                                              \
  extern "C" __global__ void pad_##BITS(                                                                                         \
      const u##BITS* flat, u##BITS* padded, void* mask, const long long* splits, long long rows, long long size,                 \
      long long width, u##BITS fill, u64 one, int mask_bytes) {                                                                  \
    pad(flat, padded, mask, splits, rows, size, width, fill, one, mask_bytes);                                                   \
  }

ALL(8)
ALL(16)
ALL(32)
ALL(64)
