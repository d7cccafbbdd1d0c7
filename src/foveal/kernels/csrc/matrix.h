// Weights and inputs of a product as the kernels read them. Plain pointers: whoever builds these keeps the memory alive.
#pragma once

#include <cstdint>

namespace foveal {

constexpr int kPanel = 32;  // output columns that are stored side by side
constexpr int kGroup = 32;  // inputs of a token that share one activation scale

enum class WeightKind : int32_t { kFloat32, kFloat16, kBfloat16, kInt8, kInt4 };

// y = x W^T, W [n, k], in panels of 32 outputs (`n` and `k` rounded up, the padding is zero):
//   float32, float16, bfloat16  [n/32][k][32]
//   int8               [n/32][k/4][32][4] unsigned codes, zero point 128
//   int4               [n/32][k/32][4][32][4] bytes; byte t of a group holds inputs 8t + j (low) and 8t + 4 + j (high)
struct Matrix {
  WeightKind kind;
  int n, k;  // padded
  int outputs;
  const void* data;
  const uint16_t* scales;    // int4, int8 in groups: half [n/32][k/group][32], relative to `channel`; else null
  const uint16_t* minimums;  // int4 asymmetric: half, likewise: the value of code 0
  const float* channel;      // int8, int4: [n]
  const float* bias;         // [n] or null
  int group;                 // inputs per scale, where there are `scales`
  int zero;                  // code that stands for 0: 128, 8, or 0 where `minimums` say more

  bool is_quantised() const { return kind == WeightKind::kInt8 || kind == WeightKind::kInt4; }
};

// Rows of inputs. Quantised: x = scale * code, one scale per group of 32.
struct Inputs {
  const float* values;  // [rows, stride], for float weights
  int stride;
  int8_t* codes;   // [rows, k]
  float* scales;   // [rows, k/32]
  int32_t* seeds;  // [rows, k/32] -zero * (sum of codes): what integer sums start from
  float* sums;     // [rows, k/32] scale * (sum of codes)
};

// What happens to a finished tile of sums.
enum class Finish : int32_t {
  kStore,    // y = sum
  kAdd,      // y += sum: the residual stream
  kSiluMul,  // panels hold 16 gates and their 16 ups: y[16] = silu(gate) * up
};

struct Output {
  float* y;  // [rows, stride]
  int stride;
  int columns;  // of y that exist; a last panel may be wider
  Finish finish;
};

enum class KvKind : int32_t { kFloat32, kFloat16, kInt8 };

// One layer's KV pool.
struct KvLayer {
  KvKind kind;
  void *key, *value;                 // [slots, kv_heads, head_dim] float, half or int8
  float *key_scales, *value_scales;  // int8: [slots, kv_heads]
  int kv_heads, head_dim;
};

// Queries [rows * stride] of one KV head against positions [from, to) of one request.
struct AttentionSpan {
  const int64_t* block_table;
  int block_size;
  int kv_head;
  int from, to;
};

}  // namespace foveal
