// Rows of bytes that lie anywhere in a slab: a warp for each short one, a block for each long one.

template <typename T>
__device__ __forceinline__ void copy_as(const char* from, char* to, long long bytes, int lane, int lanes) {
  for (long long i = lane; i < bytes / (long long)sizeof(T); i += lanes) ((T*)to)[i] = ((const T*)from)[i];
}

// In the widest pieces that both sides and the length are multiples of.
__device__ __forceinline__ void copy(const char* from, char* to, long long bytes, int lane, int lanes) {
  unsigned long long alignment = (unsigned long long)from | (unsigned long long)to | (unsigned long long)bytes;
  if (alignment % 16 == 0)
    copy_as<uint4>(from, to, bytes, lane, lanes);
  else if (alignment % 4 == 0)
    copy_as<unsigned>(from, to, bytes, lane, lanes);
  else
    copy_as<char>(from, to, bytes, lane, lanes);
}

// `lanes`: threads a row, which divides a block's. Rows that aren't wholly in the slab are left out.
template <bool GATHER>
__device__ __forceinline__ void all_rows(
    char* slab, const long long* offsets, char* batch, long long slab_bytes, long long rows, long long row_bytes,
    int lanes) {
  int lane = threadIdx.x % lanes, groups = blockDim.x / lanes;
  long long step = gridDim.x * (long long)groups;
  for (long long row = blockIdx.x * (long long)groups + threadIdx.x / lanes; row < rows; row += step) {
    long long offset = offsets[row];
    char* own = batch + row * row_bytes;
    bool inside = offset >= 0 && offset <= slab_bytes - row_bytes;
    if (GATHER && !inside)
      for (long long i = lane; i < row_bytes; i += lanes) own[i] = 0;
    else if (inside)
      GATHER ? copy(slab + offset, own, row_bytes, lane, lanes) : copy(own, slab + offset, row_bytes, lane, lanes);
  }
}

extern "C" __global__ void gather_rows(
    char* slab, const long long* offsets, char* batch, long long slab_bytes, long long rows, long long row_bytes,
    int lanes) {
  all_rows<true>(slab, offsets, batch, slab_bytes, rows, row_bytes, lanes);
}

extern "C" __global__ void scatter_rows(
    char* slab, const long long* offsets, char* batch, long long slab_bytes, long long rows, long long row_bytes,
    int lanes) {
  all_rows<false>(slab, offsets, batch, slab_bytes, rows, row_bytes, lanes);
}
