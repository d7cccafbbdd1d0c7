// All kernels, compiled for one instruction set. Nothing here may instantiate templates of the standard library: the linker
// would keep one copy for all instruction sets.
#include <math.h>

#include "../operations.h"
#include "../simd/avx2.h"

namespace foveal {
namespace avx2 {
namespace {
#include "elementwise.inl"
#include "multiply.inl"
#include "attention.inl"
#include "sampling.inl"
}  // namespace
}  // namespace avx2

const Operations& avx2_operations() {
  using namespace avx2;
  static const Operations table{"avx2", multiply,     quantise,     rms_norm, rope,
                                store_kv, attend_token, attend_block, join,     gather, scan_logits,
                                sum_below};
  return table;
}
}  // namespace foveal
