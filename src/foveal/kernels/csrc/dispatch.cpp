#include "dispatch.h"

#include <atomic>
#include <cstring>
#include <initializer_list>

namespace foveal {
namespace {

const Operations* best() {
  for (const char* name : {"avx512", "avx2"})
    if (const Operations* found = find_operations(name)) return found;
  return &portable_operations();
}

std::atomic<const Operations*>& active() {
  static std::atomic<const Operations*> table{best()};
  return table;
}

}  // namespace

const Operations* find_operations(const char* name) {
  if (std::strcmp(name, "portable") == 0) return &portable_operations();
#ifdef FOVEAL_X86
  __builtin_cpu_init();
  if (std::strcmp(name, "avx512") == 0 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni"))
    return &avx512_operations();
  if (std::strcmp(name, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("f16c"))
    return &avx2_operations();
#endif
  return nullptr;
}

const Operations& operations() { return *active().load(std::memory_order_relaxed); }

void use_operations(const Operations& table) { active().store(&table, std::memory_order_relaxed); }

}  // namespace foveal
