// Python's view: arrays are checked here, once; behind this file there are only pointers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "decoder.h"
#include "dispatch.h"
#include "row_sampler.h"
#include "rows_buffer.h"
#include "step_attention.h"
#include "thread_team.h"

namespace nb = nanobind;

namespace foveal {
namespace {

template <typename T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
template <typename T>
using MaybeArray = std::optional<Array<T>>;

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <typename T>
T* pointer(const MaybeArray<T>& array) {
  return array ? array->data() : nullptr;
}

template <typename T>
void require_size(const MaybeArray<T>& array, size_t size, const char* what) {
  if (array) require(array->size() == size, what);
}

// A packed matrix and the arrays it lies in.
struct OwnedMatrix {
  Matrix view{};
  Array<const uint8_t> data;
  MaybeArray<const uint16_t> scales, minimums;
  MaybeArray<const float> channel, bias;
};

OwnedMatrix make_matrix(const std::string& kind, int outputs, int n, int k, Array<const uint8_t> data,
                        MaybeArray<const uint16_t> scales, MaybeArray<const uint16_t> minimums,
                        MaybeArray<const float> channel, MaybeArray<const float> bias, int group) {
  OwnedMatrix m;
  require(n > 0 && k > 0 && n % kPanel == 0 && outputs > 0 && outputs <= n, "n must be a multiple of 32 that holds all outputs");
  const size_t count = static_cast<size_t>(n) * k;
  size_t bytes = 0;
  Matrix& v = m.view;
  if (kind == "float32") {
    v.kind = WeightKind::kFloat32, bytes = 4 * count;
  } else if (kind == "float16") {
    v.kind = WeightKind::kFloat16, bytes = 2 * count;
  } else if (kind == "bfloat16") {
    v.kind = WeightKind::kBfloat16, bytes = 2 * count;
  } else if (kind == "int8") {
    v.kind = WeightKind::kInt8, bytes = count, v.zero = 128;
  } else if (kind == "int4") {
    v.kind = WeightKind::kInt4, bytes = count / 2, v.zero = minimums ? 0 : 8;
  } else {
    throw std::invalid_argument("kind must be float32, float16, bfloat16, int8 or int4");
  }
  require(data.size() == bytes, "data does not have the size of its shape");
  if (v.is_quantised()) {
    require(k % kGroup == 0, "k of a quantised matrix must be a multiple of 32");
    require(channel.has_value(), "a quantised matrix needs one scale per output");
  }
  require(v.kind == WeightKind::kInt4 || !minimums, "only int4 has minimums");
  if (v.kind == WeightKind::kInt4 || (v.kind == WeightKind::kInt8 && scales)) {
    require(group > 0 && group % kGroup == 0 && k % group == 0, "group must be a multiple of 32 that divides k");
    require(scales && scales->size() == count / group, "scales do not have the size of their groups");
    require_size(minimums, count / group, "minimums do not have the size of their groups");
  }
  require_size(channel, n, "channel must be [n]");
  require_size(bias, n, "bias must be [n]");
  m.data = data, m.scales = scales, m.minimums = minimums, m.channel = channel, m.bias = bias;
  v.n = n, v.k = k, v.outputs = outputs, v.group = group;
  v.data = data.data(), v.scales = pointer(scales), v.minimums = pointer(minimums);
  v.channel = pointer(channel), v.bias = pointer(bias);
  return m;
}

Finish finish_of(const std::string& name) {
  if (name == "store") return Finish::kStore;
  if (name == "add") return Finish::kAdd;
  if (name == "silu_mul") return Finish::kSiluMul;
  throw std::invalid_argument("finish must be store, add or silu_mul");
}

void linear(const OwnedMatrix& w, Array<const float> x, Array<float> out, const std::string& finish, int threads) {
  const Matrix& v = w.view;
  const Finish how = finish_of(finish);
  require(x.ndim() == 2 && out.ndim() == 2 && x.shape(0) == out.shape(0), "x and out must have the same rows");
  const int rows = static_cast<int>(x.shape(0)), columns = static_cast<int>(x.shape(1));
  const int outputs = how == Finish::kSiluMul ? v.outputs / 2 : v.outputs;
  require(static_cast<int>(out.shape(1)) == outputs, "out does not have the matrix's outputs");
  require(v.is_quantised() ? columns <= v.k && columns + kGroup * 4 > v.k : columns == v.k,
          "x does not have the matrix's inputs");
  const float* values = x.data();
  float* y = out.data();
  nb::gil_scoped_release released;
  const Operations& ops = operations();
  thread_local RowsBuffer buffer;
  RowsBuffer& shared = buffer;
  if (v.is_quantised()) shared.reserve(rows, v.k);
  Barrier barrier(threads);
  thread_local Claims claims_of_caller;
  Claims& claims = claims_of_caller;
  claims.begin(threads);
  run_on(threads, [&](int thread) {
    Inputs inputs{values, columns, nullptr, nullptr, nullptr, nullptr};
    if (v.is_quantised()) {
      const Share mine(rows, thread, threads);
      shared.fill(ops, v, values, columns, columns, mine.first, mine.last);
      barrier.wait();
      inputs = shared.inputs();
    }
    claims.run(0, v.n / kPanel, kClaimedPanels, thread, threads, [&](int first, int last) {
      ops.multiply(v, inputs, rows, first, last, {y, outputs, outputs, how});
    });
  });
}

void quantise_rows(Array<const float> x, int zero, Array<int8_t> codes, Array<float> scales, Array<int32_t> seeds,
                   Array<float> sums) {
  require(x.ndim() == 2 && codes.ndim() == 2 && codes.shape(0) == x.shape(0), "x and codes must have the same rows");
  const size_t rows = x.shape(0), columns = x.shape(1), padded = codes.shape(1), groups = padded / kGroup;
  require(padded % kGroup == 0 && padded >= columns, "codes must be padded to a multiple of 32");
  require(scales.size() == rows * groups && seeds.size() == rows * groups && sums.size() == rows * groups,
          "one scale, seed and sum per group");
  for (size_t r = 0; r < rows; ++r)
    operations().quantise(x.data() + r * columns, static_cast<int>(columns), static_cast<int>(padded), zero,
                          codes.data() + r * padded, scales.data() + r * groups, seeds.data() + r * groups,
                          sums.data() + r * groups);
}

void gather_rows(const OwnedMatrix& w, Array<const int64_t> rows, Array<float> out) {
  require(w.view.kind == WeightKind::kInt8, "rows can be gathered of an int8 matrix only");
  require(out.ndim() == 2 && out.shape(0) == rows.size() && static_cast<int>(out.shape(1)) == w.view.k,
          "out must be [rows, k]");
  for (size_t i = 0; i < rows.size(); ++i) {
    require(rows.data()[i] >= 0 && rows.data()[i] < w.view.outputs, "a row lies outside the matrix");
    operations().gather(w.view, rows.data()[i], out.data() + i * w.view.k);
  }
}

void rms_norm_rows(Array<const float> x, Array<const float> weight, float epsilon, Array<float> out) {
  const size_t width = weight.size();
  require(width > 0 && x.size() == out.size() && x.size() % width == 0, "x and out must be [.., width]");
  for (size_t at = 0; at < x.size(); at += width)
    operations().rms_norm(x.data() + at, weight.data(), static_cast<int>(width), epsilon, out.data() + at);
}

// From each row of logits x [R, n] one token for each of its keys, keys[starts[r]] to keys[starts[r + 1]]; none from rows
// that are not settled.
void draw_rows(Array<const float> x, Array<const float> temperature, Array<const int32_t> top_k, Array<const double> top_p,
               Array<const double> min_p, Array<const int32_t> starts, Array<const uint32_t> keys,
               Array<const uint32_t> hashed_ids, double window, int most, Array<int32_t> tokens, Array<bool> settled,
               int threads) {
  require(x.ndim() == 2 && x.shape(1) > 0 && most > 0, "x must be [R, n], and `most` at least 1");
  const size_t rows = x.shape(0), n = x.shape(1);
  require(temperature.size() == rows && top_k.size() == rows && top_p.size() == rows && min_p.size() == rows &&
              settled.size() == rows && starts.size() == rows + 1,
          "one temperature, top_k, top_p, min_p, verdict and start per row, and the end of the starts");
  require(hashed_ids.size() >= n + 2, "hashed_ids must cover the vocabulary, the tail and the choice within it");
  require(keys.size() == 2 * tokens.size() && starts.data()[0] == 0 &&
              static_cast<size_t>(starts.data()[rows]) == tokens.size() &&
              std::is_sorted(starts.data(), starts.data() + rows + 1),
          "starts must ascend from 0 to the number of keys, and there must be a token for each key");
  nb::gil_scoped_release released;
  threads = static_cast<int>(std::min<size_t>(threads, rows));
  run_on(threads, [&](int thread) {
    RowSampler sampler(window, most);
    for (size_t r = thread; r < rows; r += threads) {
      const Filters filters{temperature.data()[r], top_k.data()[r], top_p.data()[r], min_p.data()[r]};
      settled.data()[r] = sampler.settle(x.data() + r * n, static_cast<int>(n), filters);
      if (!settled.data()[r]) continue;
      for (int d = starts.data()[r]; d < starts.data()[r + 1]; ++d)
        tokens.data()[d] = sampler.draw(hashed_ids.data(), {keys.data()[2 * d], keys.data()[2 * d + 1]});
    }
  });
}

// Reads every byte once: what a benchmark divides by the time to get the memory bandwidth of this moment.
uint64_t read_all(Array<const uint64_t> words, int threads) {
  const uint64_t* p = words.data();
  const int64_t count = static_cast<int64_t>(words.size());
  std::vector<uint64_t> sums(threads * 8);
  nb::gil_scoped_release released;
  run_on(threads, [&](int thread) {
    uint64_t a = 0, b = 0, c = 0, d = 0;
    int64_t i = count * thread / threads;
    const int64_t end = count * (thread + 1) / threads;
    for (; i + 4 <= end; i += 4) a += p[i], b += p[i + 1], c += p[i + 2], d += p[i + 3];
    for (; i < end; ++i) a += p[i];
    sums[thread * 8] = a + b + c + d;
  });
  uint64_t sum = 0;
  for (const uint64_t part : sums) sum += part;
  return sum;
}

// The KV pool: [layers, slots, kv_heads, head_dim], float32, float16, or int8 with scales [layers, slots, kv_heads].
class Pool {
 public:
  Pool(nb::ndarray<nb::c_contig, nb::device::cpu> key, nb::ndarray<nb::c_contig, nb::device::cpu> value,
       MaybeArray<float> key_scales, MaybeArray<float> value_scales, int block_size)
      : block_size(block_size), key_(key), value_(value), key_scales_(key_scales), value_scales_(value_scales) {
    require(key.ndim() == 4 && value.ndim() == 4 && key.dtype() == value.dtype() && block_size > 0,
            "key and value must be [layers, slots, kv_heads, head_dim] of one type");
    for (size_t i = 0; i < 4; ++i) require(key.shape(i) == value.shape(i), "key and value differ in shape");
    const bool coded = key.dtype() == nb::dtype<int8_t>();
    const bool half = key.dtype() == nb::dlpack::dtype{static_cast<uint8_t>(nb::dlpack::dtype_code::Float), 16, 1};
    require(coded || half || key.dtype() == nb::dtype<float>(), "the pool must be float32, float16 or int8");
    require(coded == key_scales.has_value() && coded == value_scales.has_value(), "an int8 pool needs scales");
    const size_t per_layer = key.shape(1) * key.shape(2), head_dim = key.shape(3), bytes = coded ? 1 : half ? 2 : 4;
    require_size(key_scales, key.shape(0) * per_layer, "key_scales must be [layers, slots, kv_heads]");
    require_size(value_scales, key.shape(0) * per_layer, "value_scales must be [layers, slots, kv_heads]");
    slots = static_cast<int64_t>(key.shape(1));
    for (size_t l = 0; l < key.shape(0); ++l) {
      KvLayer layer{};
      layer.kind = coded ? KvKind::kInt8 : half ? KvKind::kFloat16 : KvKind::kFloat32;
      layer.kv_heads = static_cast<int>(key.shape(2)), layer.head_dim = static_cast<int>(head_dim);
      const size_t at = l * per_layer * head_dim * bytes;
      layer.key = static_cast<char*>(key.data()) + at;
      layer.value = static_cast<char*>(value.data()) + at;
      if (coded) {
        layer.key_scales = key_scales->data() + l * per_layer;
        layer.value_scales = value_scales->data() + l * per_layer;
      }
      layers.push_back(layer);
    }
  }

  const int block_size;
  int64_t slots;
  std::vector<KvLayer> layers;

 private:
  nb::ndarray<nb::c_contig, nb::device::cpu> key_, value_;
  MaybeArray<float> key_scales_, value_scales_;
};

Step make_step(const Pool& pool, const Array<const int64_t>& slots, const Array<const int64_t>& tables,
               const Array<const int32_t>& q_starts, const Array<const int32_t>& kv_lens,
               const MaybeArray<const int32_t>& visible_ends) {
  require(tables.ndim() == 2 && tables.shape(0) == kv_lens.size() && q_starts.size() == kv_lens.size() + 1,
          "block_tables, q_starts and kv_lens do not belong together");
  const int tokens = static_cast<int>(slots.size()), requests = static_cast<int>(kv_lens.size());
  const int64_t stride = static_cast<int64_t>(tables.shape(1));
  require(q_starts.data()[0] == 0 && q_starts.data()[requests] == tokens, "q_starts must run from 0 to the tokens");
  require_size(visible_ends, tokens, "visible_ends must be [tokens]");
  for (int t = 0; t < tokens; ++t)
    require(slots.data()[t] >= 0 && slots.data()[t] < pool.slots, "a slot lies outside the pool");
  for (int r = 0; r < requests; ++r) {
    const int length = kv_lens.data()[r], first = q_starts.data()[r], last = q_starts.data()[r + 1];
    require(last >= first && length >= last - first, "a request has more new tokens than positions");
    const int64_t blocks = (length + pool.block_size - 1) / pool.block_size;
    require(blocks <= stride, "a block table is shorter than its request");
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t block = tables.data()[r * stride + b];
      require(block >= 0 && (block + 1) * pool.block_size <= pool.slots, "a block lies outside the pool");
    }
    for (int t = first; t < last && visible_ends; ++t) {
      const int end = visible_ends->data()[t];
      require(end > length - (last - t) && end <= length, "visible_ends must hold the token and lie within its request");
    }
  }
  return {tokens,          requests,        slots.data(),           tables.data(), static_cast<int>(stride),
          q_starts.data(), kv_lens.data(), pointer(visible_ends), pool.block_size};
}

// One layer of attention alone: for tests, and for decoders that are not ours. Queries are scaled already.
void paged_attention(Pool& pool, int layer, Array<const float> queries, Array<const float> keys,
                     Array<const float> values, Array<const int64_t> slots, Array<const int64_t> tables,
                     Array<const int32_t> q_starts, Array<const int32_t> kv_lens,
                     MaybeArray<const int32_t> visible_ends, int window, Array<float> out, int threads) {
  require(layer >= 0 && static_cast<size_t>(layer) < pool.layers.size(), "the pool lacks this layer");
  const KvLayer& kv = pool.layers[layer];
  const Step step = make_step(pool, slots, tables, q_starts, kv_lens, visible_ends);
  require(queries.ndim() == 3 && static_cast<int>(queries.shape(0)) == step.tokens &&
              static_cast<int>(queries.shape(2)) == kv.head_dim && queries.shape(1) % kv.kv_heads == 0,
          "queries must be [tokens, heads, head_dim]");
  const size_t kv_size = static_cast<size_t>(step.tokens) * kv.kv_heads * kv.head_dim;
  require(keys.size() == kv_size && values.size() == kv_size, "keys and values must be [tokens, kv_heads, head_dim]");
  require(out.size() == queries.size(), "out must have the shape of queries");
  const int heads = static_cast<int>(queries.shape(1)), width = heads * kv.head_dim;
  nb::gil_scoped_release released;
  const Operations& ops = operations();
  thread_local StepAttention of_thread;
  StepAttention& attention = of_thread;
  attention.prepare(step, {window}, heads, kv.kv_heads, kv.head_dim, threads);
  Barrier barrier(threads);
  run_on(threads, [&](int thread) {
    const Share mine(step.tokens, thread, threads);
    for (int t = mine.first; t < mine.last; ++t)
      for (int head = 0; head < kv.kv_heads; ++head) {
        const int64_t at = (static_cast<int64_t>(t) * kv.kv_heads + head) * kv.head_dim;
        ops.store_kv(kv, step.slots[t], head, keys.data() + at, values.data() + at);
      }
    barrier.wait();
    attention.run(ops, kv, window, queries.data(), width, out.data(), thread);
    barrier.wait();
    attention.join(ops, window, mine.first, mine.last, out.data());
  });
}

// A decoder and everything that its plan points to.
class OwnedDecoder {
 public:
  OwnedDecoder(int heads, int kv_heads, int head_dim, float scale, float epsilon, float qk_epsilon,
               Array<const float> final_norm)
      : final_norm_(final_norm) {
    require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && head_dim > 0 && head_dim % 2 == 0,
            "kv_heads must divide heads, and head_dim be even");
    shape_ = {static_cast<int>(final_norm.size()), heads, kv_heads, head_dim, 0, epsilon, qk_epsilon, scale};
  }

  void add_layer(nb::object qkv, nb::object out, nb::object gate_up, nb::object down, Array<const float> input_norm,
                 Array<const float> mlp_norm, MaybeArray<const float> query_norm, MaybeArray<const float> key_norm,
                 int window) {
    require(!decoder_, "layers cannot be added after the first step");
    Layer layer{nb::cast<const OwnedMatrix&>(qkv).view,
                nb::cast<const OwnedMatrix&>(out).view,
                nb::cast<const OwnedMatrix&>(gate_up).view,
                nb::cast<const OwnedMatrix&>(down).view,
                input_norm.data(),
                mlp_norm.data(),
                pointer(query_norm),
                pointer(key_norm),
                window};
    const int attended = shape_.heads * shape_.head_dim, head_dim = shape_.head_dim;
    if (layers_.empty()) shape_.intermediate = layer.gate_up.outputs / 2;
    require(layer.qkv.outputs == attended + 2 * shape_.kv_heads * head_dim, "qkv has the wrong outputs");
    require(layer.out.outputs == shape_.hidden && layer.down.outputs == shape_.hidden, "out or down has the wrong outputs");
    require(layer.gate_up.outputs == 2 * shape_.intermediate, "layers differ in their intermediate size");
    check_inputs(layer.qkv, shape_.hidden), check_inputs(layer.out, attended);
    check_inputs(layer.gate_up, shape_.hidden), check_inputs(layer.down, shape_.intermediate);
    require(static_cast<int>(input_norm.size()) == shape_.hidden && static_cast<int>(mlp_norm.size()) == shape_.hidden,
            "norms must be [hidden]");
    require_size(query_norm, head_dim, "query_norm must be [head_dim]");
    require_size(key_norm, head_dim, "key_norm must be [head_dim]");
    layers_.push_back(layer);
    for (const nb::object& matrix : {qkv, out, gate_up, down}) matrices_.push_back(matrix);
    norms_.push_back(input_norm), norms_.push_back(mlp_norm);
    if (query_norm) norms_.push_back(*query_norm);
    if (key_norm) norms_.push_back(*key_norm);
  }

  void run(Pool& pool, Array<float> x, Array<const float> cos, Array<const float> sin, Array<const int64_t> slots,
           Array<const int64_t> tables, Array<const int32_t> q_starts, Array<const int32_t> kv_lens,
           MaybeArray<const int32_t> visible_ends, int threads) {
    const Step step = make_step(pool, slots, tables, q_starts, kv_lens, visible_ends);
    const size_t rotary = static_cast<size_t>(step.tokens) * shape_.head_dim;
    require(x.ndim() == 2 && static_cast<int>(x.shape(0)) == step.tokens &&
                static_cast<int>(x.shape(1)) == shape_.hidden,
            "x must be [tokens, hidden]");
    require(cos.size() == rotary && sin.size() == rotary, "cos and sin must be [tokens, head_dim]");
    require(pool.layers.size() == layers_.size() && pool.layers[0].kv_heads == shape_.kv_heads &&
                pool.layers[0].head_dim == shape_.head_dim,
            "the pool is not this decoder's");
    require(threads > 0, "threads must be positive");
    if (!decoder_) decoder_ = std::make_unique<Decoder>(shape_, layers_, final_norm_.data());
    if (step.tokens == 0) return;
    nb::gil_scoped_release released;
    decoder_->run(step, pool.layers, cos.data(), sin.data(), x.data(), threads);
  }

 private:
  static void check_inputs(const Matrix& w, int inputs) {
    require(w.is_quantised() ? w.k >= inputs : w.k == inputs, "a matrix has the wrong inputs");
  }

  DecoderShape shape_{};
  std::vector<Layer> layers_;
  std::vector<nb::object> matrices_;
  std::vector<Array<const float>> norms_;
  Array<const float> final_norm_;
  std::unique_ptr<Decoder> decoder_;
};

}  // namespace
}  // namespace foveal

NB_MODULE(_native, m) {
  using namespace foveal;
  using nb::arg;
  m.attr("PANEL") = kPanel;
  m.attr("GROUP") = kGroup;
  m.def("instruction_set", [] { return operations().name; });
  m.def("thread_source", [] { return thread_source(); });
  m.def("available_instruction_sets", [] {
    std::vector<std::string> names;
    for (const char* name : {"avx512", "avx2", "portable"})
      if (find_operations(name)) names.emplace_back(name);
    return names;
  });
  m.def("use_instruction_set", [](const std::string& name) {
    const Operations* found = find_operations(name.c_str());
    require(found != nullptr, "this processor or build lacks that instruction set");
    use_operations(*found);
  });
  nb::class_<OwnedMatrix>(m, "Matrix").def_prop_ro("outputs", [](const OwnedMatrix& w) { return w.view.outputs; });
  m.def("make_matrix", &make_matrix, arg("kind"), arg("outputs"), arg("n"), arg("k"), arg("data"),
        arg("scales").none() = nb::none(), arg("minimums").none() = nb::none(), arg("channel").none() = nb::none(),
        arg("bias").none() = nb::none(), arg("group") = 0);
  m.def("linear", &linear, arg("matrix"), arg("x"), arg("out"), arg("finish") = "store", arg("threads") = 1);
  m.def("read_all", &read_all, arg("words"), arg("threads"));
  m.def("quantise_rows", &quantise_rows);
  m.def("draw_rows", &draw_rows, arg("x"), arg("temperature"), arg("top_k"), arg("top_p"), arg("min_p"), arg("starts"),
        arg("keys"), arg("hashed_ids"), arg("window"), arg("most"), arg("tokens"), arg("settled"),
        arg("threads"));
  m.def("gather_rows", &gather_rows);
  m.def("rms_norm", &rms_norm_rows);
  nb::class_<Pool>(m, "Pool").def(
      nb::init<nb::ndarray<nb::c_contig, nb::device::cpu>, nb::ndarray<nb::c_contig, nb::device::cpu>, MaybeArray<float>,
               MaybeArray<float>, int>(),
      arg("key"), arg("value"), arg("key_scales").none(), arg("value_scales").none(), arg("block_size"));
  m.def("paged_attention", &paged_attention, arg("pool"), arg("layer"), arg("queries"), arg("keys"), arg("values"),
        arg("slots"), arg("block_tables"), arg("q_starts"), arg("kv_lens"), arg("visible_ends").none(), arg("window"),
        arg("out"), arg("threads"));
  nb::class_<OwnedDecoder>(m, "Decoder")
      .def(nb::init<int, int, int, float, float, float, Array<const float>>(), arg("heads"), arg("kv_heads"),
           arg("head_dim"), arg("scale"), arg("epsilon"), arg("qk_epsilon"), arg("final_norm"))
      .def("add_layer", &OwnedDecoder::add_layer, arg("qkv"), arg("out"), arg("gate_up"), arg("down"), arg("input_norm"),
           arg("mlp_norm"), arg("query_norm").none(), arg("key_norm").none(), arg("window"))
      .def("run", &OwnedDecoder::run, arg("pool"), arg("x"), arg("cos"), arg("sin"), arg("slots"), arg("block_tables"),
           arg("q_starts"), arg("kv_lens"), arg("visible_ends").none(), arg("threads"));
}
