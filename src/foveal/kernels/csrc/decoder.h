// All layers of a Llama-shaped decoder in one parallel region.
#pragma once

#include <vector>

#include "matrix.h"
#include "rows_buffer.h"
#include "step_attention.h"
#include "thread_team.h"

namespace foveal {

struct Layer {
  Matrix qkv, out, gate_up, down;
  const float *input_norm, *mlp_norm;  // [hidden]
  const float *query_norm, *key_norm;  // [head_dim] or null
  int window;                          // 0: none
};

struct DecoderShape {
  int hidden, heads, kv_heads, head_dim, intermediate;
  float epsilon, qk_epsilon, scale;
};

class Decoder {
 public:
  Decoder(DecoderShape shape, std::vector<Layer> layers, const float* final_norm)
      : shape_(shape), layers_(std::move(layers)), final_norm_(final_norm) {}

  // x [tokens, hidden]: embeddings in, the final norm's output out. cos and sin are [tokens, head_dim].
  void run(const Step& step, const std::vector<KvLayer>& kv, const float* cos, const float* sin, float* x, int threads);

 private:
  void reserve(int tokens, int threads);

  const DecoderShape shape_;
  const std::vector<Layer> layers_;
  const float* final_norm_;
  RowsBuffer rows_;
  Buffer<float> normed_, qkv_, attended_, hidden_;
  struct Private {
    RowsBuffer rows;
    Buffer<float> floats;
  };
  std::vector<Private> private_;
  StepAttention attention_;
  Claims claims_;
};

}  // namespace foveal
