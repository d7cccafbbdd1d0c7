// Attention over the paged pool. Softmax is online (arXiv 1805.02867): sums are kept relative to the largest score so far.

static inline int64_t slot_of(const AttentionSpan& span, int position) {
  return span.block_table[position / span.block_size] * span.block_size + position % span.block_size;
}

// Sixteen (or n) values of a cached vector, not yet scaled.
struct KvReader {
  const float* floats;
  const int8_t* codes;
  F32 load_at(int64_t offset, int n) const {
    if (floats != nullptr) return n == 16 ? load(floats + offset) : load_n(floats + offset, n);
    if (n == 16) return load_int8(codes + offset);
    int8_t lanes[16] = {};
    __builtin_memcpy(lanes, codes + offset, n);
    return load_int8(lanes);
  }
};

// R query heads that share the KV head. kWide is head_dim / 16 where that is known, else 0.
template <int R, int kWide>
static void attend_rows(const KvLayer& kv, const AttentionSpan& span, const float* queries, float* sums, float* most,
                        float* total) {
  const int width = kWide > 0 ? kWide * 16 : kv.head_dim, chunks = (width + 15) / 16;
  const KvReader keys{kv.key, kv.key_codes}, values{kv.value, kv.value_codes};
  float largest[R], weight_sum[R];
  for (int r = 0; r < R; ++r) largest[r] = -__builtin_inff(), weight_sum[r] = 0.0f;
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < width; ++i) sums[r * width + i] = 0.0f;
  alignas(64) float scores[R][16];
  int64_t rows[16];
  for (int from = span.from; from < span.to; from += 16) {
    const int count = span.to - from < 16 ? span.to - from : 16;
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < 16; ++j) scores[r][j] = -__builtin_inff();
    for (int j = 0; j < count; ++j) {
      rows[j] = slot_of(span, from + j) * kv.kv_heads + span.kv_head;
      F32 acc[R];
      repeat<R>([&](auto r) FOVEAL_INLINE { acc[r] = zero(); });
      for (int c = 0; c < chunks; ++c) {
        const int n = kWide > 0 || width - 16 * c >= 16 ? 16 : width - 16 * c;
        const F32 key = keys.load_at(rows[j] * width + 16 * c, n);
        repeat<R>([&](auto r) FOVEAL_INLINE {
          const float* q = queries + r * width + 16 * c;
          acc[r] = fma(n == 16 ? load(q) : load_n(q, n), key, acc[r]);
        });
      }
      const float scale = kv.key_scales != nullptr ? kv.key_scales[rows[j]] : 1.0f;
      repeat<R>([&](auto r) FOVEAL_INLINE { scores[r][j] = reduce_add(acc[r]) * scale; });
    }
    for (int r = 0; r < R; ++r) {
      const F32 score = load(scores[r]);
      const float top = reduce_max(score), now = top > largest[r] ? top : largest[r];
      const F32 weights = exponential(sub(score, set1(now)));
      store(scores[r], weights);
      float added = 0.0f;
      if (count < 16) {  // exponential() clamps minus infinity to a tiny number; leave the padding out
        for (int j = 0; j < count; ++j) added += scores[r][j];
      } else {
        added = reduce_add(weights);
      }
      if (now > largest[r]) {
        const float shrink = weight_sum[r] > 0.0f ? ::expf(largest[r] - now) : 0.0f;
        weight_sum[r] *= shrink;
        for (int i = 0; i < width; ++i) sums[r * width + i] *= shrink;
        largest[r] = now;
      }
      weight_sum[r] += added;
      if (kv.value_scales != nullptr)
        for (int j = 0; j < count; ++j) scores[r][j] *= kv.value_scales[rows[j]];
    }
    for (int c = 0; c < chunks; ++c) {
      const int n = kWide > 0 || width - 16 * c >= 16 ? 16 : width - 16 * c;
      F32 acc[R];
      repeat<R>([&](auto r) FOVEAL_INLINE { acc[r] = load_n(sums + r * width + 16 * c, n); });
      for (int j = 0; j < count; ++j) {
        const F32 value = values.load_at(rows[j] * width + 16 * c, n);
        repeat<R>([&](auto r) FOVEAL_INLINE { acc[r] = fma(set1(scores[r][j]), value, acc[r]); });
      }
      repeat<R>([&](auto r) FOVEAL_INLINE { store_n(sums + r * width + 16 * c, acc[r], n); });
    }
  }
  for (int r = 0; r < R; ++r) most[r] = largest[r], total[r] = weight_sum[r];
}

template <int R>
static void attend_width(const KvLayer& kv, const AttentionSpan& span, const float* q, float* sums, float* most,
                         float* total) {
  if (kv.head_dim == 64) {
    attend_rows<R, 4>(kv, span, q, sums, most, total);
  } else if (kv.head_dim == 128) {
    attend_rows<R, 8>(kv, span, q, sums, most, total);
  } else {
    attend_rows<R, 0>(kv, span, q, sums, most, total);
  }
}

static void attend_token(const KvLayer& kv, const AttentionSpan& span, const float* queries, int group, float* sums,
                         float* most, float* total) {
  for (int r = 0; r < group;) {
    const int left = group - r, taken = left >= 4 ? 4 : left;
    const float* q = queries + r * kv.head_dim;
    float* s = sums + r * kv.head_dim;
    if (taken == 4) attend_width<4>(kv, span, q, s, most + r, total + r);
    if (taken == 3) attend_width<3>(kv, span, q, s, most + r, total + r);
    if (taken == 2) attend_width<2>(kv, span, q, s, most + r, total + r);
    if (taken == 1) attend_width<1>(kv, span, q, s, most + r, total + r);
    r += taken;
  }
}

static void join(const float* sums, const float* most, const float* total, int parts, int stride, int head_dim,
                 float* out) {
  float largest = -__builtin_inff();
  for (int p = 0; p < parts; ++p) largest = most[p * stride] > largest ? most[p * stride] : largest;
  float weight = 0.0f;
  for (int i = 0; i < head_dim; ++i) out[i] = 0.0f;
  for (int p = 0; p < parts; ++p) {
    if (total[p * stride] <= 0.0f) continue;
    const float factor = ::expf(most[p * stride] - largest);
    weight += factor * total[p * stride];
    const float* part = sums + static_cast<int64_t>(p) * stride * head_dim;
    for (int i = 0; i < head_dim; ++i) out[i] += factor * part[i];
  }
  const float inverse = weight > 0.0f ? 1.0f / weight : 0.0f;
  for (int i = 0; i < head_dim; ++i) out[i] *= inverse;
}

// c[M][32] (+)= a[M][k] * panel[k][32]
template <int M>
static inline void panel_product(const float* a, int stride, const float* panel, int k, float* c, int c_stride,
                                 bool adds) {
  F32 sum[M][2];
  repeat<M>([&](auto m) FOVEAL_INLINE {
    sum[m][0] = adds ? load(c + m * c_stride) : zero();
    sum[m][1] = adds ? load(c + m * c_stride + 16) : zero();
  });
  for (int i = 0; i < k; ++i, panel += kPanel) {
    const F32 p0 = load(panel), p1 = load(panel + 16);
    repeat<M>([&](auto m) FOVEAL_INLINE {
      const F32 x = set1(a[m * stride + i]);
      sum[m][0] = fma(x, p0, sum[m][0]);
      sum[m][1] = fma(x, p1, sum[m][1]);
    });
  }
  repeat<M>([&](auto m) FOVEAL_INLINE {
    store(c + m * c_stride, sum[m][0]);
    store(c + m * c_stride + 16, sum[m][1]);
  });
}

struct BlockTile {
  const float* keys;    // [2][head_dim][32]
  const float* values;  // [panels][64][32]
  int from, count;
  int head_dim, panels;
};

template <int M>
static void block_rows(const BlockTile& t, const float* queries, const int* lows, const int* highs, float* sums,
                       float* most, float* total, float* scores) {
  const int width = t.panels * kPanel;
  for (int half = 0; half < kKeyTile / kPanel; ++half)
    panel_product<M>(queries, t.head_dim, t.keys + half * t.head_dim * kPanel, t.head_dim, scores + half * kPanel,
                     kKeyTile, false);
  for (int m = 0; m < M; ++m) {
    float* row = scores + m * kKeyTile;
    int low = lows[m] - t.from, high = highs[m] - t.from;
    low = low < 0 ? 0 : low;
    high = high > t.count ? t.count : high;
    if (low >= high) {
      for (int j = 0; j < kKeyTile; ++j) row[j] = 0.0f;
      continue;
    }
    for (int j = 0; j < low; ++j) row[j] = -__builtin_inff();
    for (int j = high; j < kKeyTile; ++j) row[j] = -__builtin_inff();
    F32 top = load(row);
    for (int j = 16; j < kKeyTile; j += 16) top = max(top, load(row + j));
    const float largest = reduce_max(top), now = largest > most[m] ? largest : most[m];
    F32 added = zero();
    for (int j = 0; j < kKeyTile; j += 16) {
      const F32 weights = exponential(sub(load(row + j), set1(now)));
      store(row + j, weights);
      added = add(added, weights);
    }
    float excess = 0.0f;  // exponential() clamps minus infinity to a tiny number; leave what is hidden out
    for (int j = 0; j < low; ++j) excess += row[j], row[j] = 0.0f;
    for (int j = high; j < kKeyTile; ++j) excess += row[j], row[j] = 0.0f;
    if (now > most[m]) {
      const float shrink = total[m] > 0.0f ? ::expf(most[m] - now) : 0.0f;
      total[m] *= shrink;
      const F32 factor = set1(shrink);
      for (int i = 0; i < width; i += 16) store(sums + m * width + i, mul(load(sums + m * width + i), factor));
      most[m] = now;
    }
    total[m] += reduce_add(added) - excess;
  }
  for (int p = 0; p < t.panels; ++p)
    panel_product<M>(scores, kKeyTile, t.values + p * kKeyTile * kPanel, kKeyTile, sums + p * kPanel, width, true);
}

static void fill_tile(const KvLayer& kv, const AttentionSpan& span, int from, int count, int panels, float* keys,
                      float* values) {
  const int width = kv.head_dim;
  const KvReader key_reader{kv.key, kv.key_codes}, value_reader{kv.value, kv.value_codes};
  for (int j = 0; j < kKeyTile; ++j) {
    float* column = keys + j / kPanel * width * kPanel + j % kPanel;
    if (j >= count) {
      for (int i = 0; i < width; ++i) column[i * kPanel] = 0.0f;
      for (int p = 0; p < panels; ++p)
        for (int i = 0; i < kPanel; ++i) values[(p * kKeyTile + j) * kPanel + i] = 0.0f;
      continue;
    }
    const int64_t row = slot_of(span, from + j) * kv.kv_heads + span.kv_head;
    const F32 key_scale = set1(kv.key_scales != nullptr ? kv.key_scales[row] : 1.0f);
    const F32 value_scale = set1(kv.value_scales != nullptr ? kv.value_scales[row] : 1.0f);
    for (int i = 0; i < panels * kPanel; i += 16) {
      const int n = width - i >= 16 ? 16 : width - i;
      float* into = values + (i / kPanel * kKeyTile + j) * kPanel + i % kPanel;
      if (n <= 0) {
        store(into, zero());
        continue;
      }
      alignas(64) float lanes[16];
      store(lanes, mul(key_reader.load_at(row * width + i, n), key_scale));
      for (int l = 0; l < n; ++l) column[(i + l) * kPanel] = lanes[l];
      store(into, mul(value_reader.load_at(row * width + i, n), value_scale));
    }
  }
}

static void attend_block(const KvLayer& kv, const AttentionSpan& span, const float* queries, const int* lows,
                         const int* highs, int rows, float* out, float* scratch) {
  const int panels = (kv.head_dim + kPanel - 1) / kPanel, width = panels * kPanel;
  float* keys = scratch;
  float* values = keys + kKeyTile * kv.head_dim;
  float* scores = values + kKeyTile * width;
  float* sums = scores + 16 * kKeyTile;
  float* most = sums + static_cast<int64_t>(rows) * width;
  float* total = most + rows;
  for (int64_t i = 0; i < static_cast<int64_t>(rows) * width; ++i) sums[i] = 0.0f;
  for (int r = 0; r < rows; ++r) most[r] = -__builtin_inff(), total[r] = 0.0f;
  for (int from = span.from; from < span.to; from += kKeyTile) {
    const int count = span.to - from < kKeyTile ? span.to - from : kKeyTile;
    fill_tile(kv, span, from, count, panels, keys, values);
    const BlockTile tile{keys, values, from, count, kv.head_dim, panels};
    for (int row = 0, taken = 0; row < rows; row += taken) {
      taken = rows - row >= kMaxRows ? kMaxRows : rows - row >= 4 && kMaxRows > 4 ? 4 : 1;
      bool sees = false;
      for (int m = row; m < row + taken; ++m) sees |= lows[m] < from + count && highs[m] > from;
      if (!sees) continue;
      const float* q = queries + static_cast<int64_t>(row) * kv.head_dim;
      float* sum = sums + static_cast<int64_t>(row) * width;
      if (taken == kMaxRows) {
        block_rows<kMaxRows>(tile, q, lows + row, highs + row, sum, most + row, total + row, scores);
      } else if (taken == 4) {
        block_rows<4>(tile, q, lows + row, highs + row, sum, most + row, total + row, scores);
      } else {
        block_rows<1>(tile, q, lows + row, highs + row, sum, most + row, total + row, scores);
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    const float inverse = total[r] > 0.0f ? 1.0f / total[r] : 0.0f;
    for (int i = 0; i < kv.head_dim; ++i)
      out[static_cast<int64_t>(r) * kv.head_dim + i] = sums[static_cast<int64_t>(r) * width + i] * inverse;
  }
}
