// Rows of different lengths, as bits of any type: a thread for each element of the padded side, so that both sides are
// read and written in order.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Where a row's token lies among all, or -1: behind the row's end, cut to `size`, or of splits that lead out of `tokens`.
__device__ __forceinline__ long long place_of(
    const long long* splits, long long row, long long token, long long tokens) {
  long long place = splits[row] + token;
  return token < splits[row + 1] - splits[row] && place >= 0 && place < tokens ? place : -1;
}

template <typename T>
__device__ __forceinline__ void pack(
    const T* padded, T* flat, const long long* splits, long long rows, long long size, long long width,
    long long tokens) {
  long long elements = rows * size * width, step = gridDim.x * (long long)blockDim.x;
#pragma unroll 1
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < elements; i += step) {
    long long cell = i / width, place = place_of(splits, cell / size, cell % size, tokens);
    if (place >= 0) flat[place * width + i % width] = padded[i];
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
    long long tokens, T fill, u64 one, int mask_bytes) {
  long long elements = rows * size * (width ? width : 1), step = gridDim.x * (long long)blockDim.x;
#pragma unroll 1
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < elements; i += step) {
    long long cell = width ? i / width : i, place = place_of(splits, cell / size, cell % size, tokens);
    if (width) padded[i] = place >= 0 ? flat[place * width + i % width] : fill;
    if (!width || i % width == 0) put(mask, cell, place >= 0 ? one : 0, mask_bytes);
  }
}

#define ALL(BITS)                                                                                                               \
  extern "C" __global__ void pack_##BITS(                                                                                       \
      const u##BITS* padded, u##BITS* flat, const long long* splits, long long rows, long long size, long long width,           \
      long long tokens) {                                                                                                       \
    pack(padded, flat, splits, rows, size, width, tokens);                                                                      \
  }                                                                                                                             \
  extern "C" __global__ void pad_##BITS(                                                                                        \
      const u##BITS* flat, u##BITS* padded, void* mask, const long long* splits, long long rows, long long size,                \
      long long width, long long tokens, u##BITS fill, u64 one, int mask_bytes) {                                               \
    pad(flat, padded, mask, splits, rows, size, width, tokens, fill, one, mask_bytes);                                          \
  }

ALL(8)
ALL(16)
ALL(32)
ALL(64)
