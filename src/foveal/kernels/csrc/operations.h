// The table of kernels that one instruction set provides.
#pragma once

#include "matrix.h"

namespace foveal {

struct Operations {
  const char* name;
  // Rows [0, rows) times panels [first, last).
  void (*multiply)(const Matrix&, const Inputs&, int rows, int first_panel, int last_panel, const Output&);
  // One row x [k] to codes; `padded` >= k is filled with zeros.
  void (*quantise)(const float* x, int k, int padded, int zero, int8_t* codes, float* scales, int32_t* seeds,
                   float* sums);
  // y [width] = x / rms(x) * weight
  void (*rms_norm)(const float* x, const float* weight, int width, float epsilon, float* y);
  // x [head_dim] * cos + rotate_half(x) * sin, in place
  void (*rope)(float* x, const float* cos, const float* sin, int head_dim);
  void (*store_kv)(const KvLayer&, int64_t slot, int kv_head, const float* key, const float* value);
  // One token's `group` query rows [group, head_dim] (scaled already) against a span of 1 to kPart positions: unnormalised
  // sums [group, head_dim], and per row the largest score and the sum of exponentials relative to it.
  void (*attend_token)(const KvLayer&, const AttentionSpan&, const float* queries, int group, float* sums, float* most,
                       float* total);
  // Several tokens: row r sees positions [lows[r], highs[r]) of the span; `out` rows are finished. `scratch` has
  // attention_scratch(rows, head_dim) floats.
  void (*attend_block)(const KvLayer&, const AttentionSpan&, const float* queries, const int* lows, const int* highs,
                       int rows, float* out, float* scratch);
  // Join the partial results of `parts` spans into out [head_dim].
  void (*join)(const float* sums, const float* most, const float* total, int parts, int stride, int head_dim, float* out);
  // Row of an int8 matrix as floats [k].
  void (*gather)(const Matrix&, int64_t row, float* out);
  // Of logits x [n]: the largest, the sum of exp((x - largest) * factor) if `weigh`, and the ascending ids of those from
  // largest - window on. Returns how many ids there are; the first `room` are written.
  int (*scan_logits)(const float* x, int n, float factor, float window, bool weigh, int room, int32_t* ids, float* largest,
                     float* total);
  // Of logits x [n] divided by the temperature, the sum of exp(value - edge) over all values below the edge.
  float (*sum_below)(const float* x, int n, float temperature, float edge);
};

// Positions of one partial result. Fixed, so that a token's sums have the same order alone and in a batch.
constexpr int kPart = 64;
constexpr int kKeyTile = 64;

constexpr int attention_scratch(int rows, int head_dim) {
  const int panels = (head_dim + kPanel - 1) / kPanel * kPanel;
  return kKeyTile * (panels + head_dim) + kKeyTile * panels + rows * (panels + 2) + 16 * kKeyTile + 64;
}

const Operations& portable_operations();
#ifdef FOVEAL_X86
const Operations& avx2_operations();
const Operations& avx512_operations();
#endif

}  // namespace foveal
