// All kernels, compiled for one instruction set. Nothing here may instantiate templates of the standard library: the linker
// would keep one copy for all instruction sets.
#include <math.h>

#include "../operations.h"
#include "../simd/portable.h"

namespace foveal {
namespace portable {
namespace {
#include "elementwise.inl"
#include "multiply.inl"
#include "attention.inl"
#include "sampling.inl"
}  // namespace
}  // namespace portable

const Operations& portable_operations() {
  using namespace portable;
  static const Operations table{"portable", multiply,     quantise,     rms_norm, rope,
                                store_kv, attend_token, attend_block, join,     gather, scan_logits,
                                sum_below};
  return table;
}
}  // namespace foveal
