// All kernels, compiled for one instruction set. Nothing here may instantiate templates of the standard library: the linker
// would keep one copy for all instruction sets.
#include <math.h>

#include "../operations.h"
#include "../simd/avx512.h"

namespace foveal {
namespace avx512 {
namespace {
#include "elementwise.inl"
#include "multiply.inl"
#include "attention.inl"
#include "sampling.inl"
}  // namespace
}  // namespace avx512

const Operations& avx512_operations() {
  using namespace avx512;
  static const Operations table{"avx512", multiply,     quantise,     rms_norm, rope,
                                store_kv, attend_token, attend_block, join,     gather, scan_logits,
                                sum_below};
  return table;
}
}  // namespace foveal
