// Attention over the paged pool. Softmax is online (arXiv 1805.02867): sums are kept relative to the largest score so far.

// Rows [slot, kv_head] of positions one after the other; the division happens once.
class RowCursor {
 public:
  RowCursor(const AttentionSpan& span, int kv_heads, int position)
      : block_(span.block_table + position / span.block_size), size_(span.block_size),
        offset_(position % span.block_size), heads_(kv_heads), head_(span.kv_head) {}

  int64_t next() {
    const int64_t row = (*block_ * size_ + offset_) * heads_ + head_;
    if (++offset_ == size_) offset_ = 0, ++block_;
    return row;
  }

 private:
  const int64_t* block_;
  const int size_;
  int offset_;
  const int heads_, head_;
};

template <KvKind>
struct StoredAs;
template <>
struct StoredAs<KvKind::kFloat32> {
  using Type = float;
};
template <>
struct StoredAs<KvKind::kFloat16> {
  using Type = uint16_t;
};
template <>
struct StoredAs<KvKind::kInt8> {
  using Type = int8_t;
};

// Vectors of a cache, not yet scaled.
template <KvKind kKind>
struct KvReader {
  using Value = typename StoredAs<kKind>::Type;
  const Value* values;

  explicit KvReader(const void* pool) : values(static_cast<const Value*>(pool)) {}

  static F32 widen(const Value* p) {
    if constexpr (kKind == KvKind::kFloat32) return load(p);
    if constexpr (kKind == KvKind::kFloat16) return load_half(p);
    if constexpr (kKind == KvKind::kInt8) return load_int8(p);
  }
  // Sixteen values, or n and zeros.
  F32 load_at(int64_t offset, int n) const {
    if (n == 16) return widen(values + offset);
    Value lanes[16] = {};
    __builtin_memcpy(lanes, values + offset, sizeof(Value) * n);
    return widen(lanes);
  }
  void prefetch_row(int64_t offset, int width) const {
    const char* p = reinterpret_cast<const char*>(values + offset);
    for (int i = 0; i < width * static_cast<int>(sizeof(Value)); i += 64) prefetch(p + i);
  }
};

// How many vectors of a value are summed for R rows at once: enough sums that none waits for the one before it.
constexpr int values_together(int rows, int wide) {
  int together = 1;
  while (wide > 0 && wide % (2 * together) == 0 && 2 * together * rows <= kAttendSums) together *= 2;
  return together;
}

// R query heads that share the KV head, over a span of at most kPart positions: its scores stay in the first-level cache.
// kWide is head_dim / 16 where that is known, else 0.
template <int R, int kWide, KvKind kKind>
static void attend_rows(const KvLayer& kv, const AttentionSpan& span, const float* queries, float* sums, float* most,
                        float* total) {
  constexpr bool kCoded = kKind == KvKind::kInt8;
  const int width = kWide > 0 ? kWide * 16 : kv.head_dim, chunks = (width + 15) / 16;
  const int count = span.to - span.from, groups = (count + 15) / 16;
  const auto lanes_of = [&](int c) FOVEAL_INLINE { return kWide > 0 || width - 16 * c >= 16 ? 16 : width - 16 * c; };
  const KvReader<kKind> keys(kv.key), values(kv.value);
  alignas(64) float lanes[R][16][16], scores[R][kPart], key_scales[kPart], value_scales[kPart];
  int64_t rows[kPart];
  RowCursor cursor(span, kv.kv_heads, span.from);
  for (int j = 0; j < count; ++j) {
    rows[j] = cursor.next();
    if (j < 16) keys.prefetch_row(rows[j] * width, width);
  }
  for (int first = 0; first < 16 * groups; first += 16) {
    const int here = count - first < 16 ? count - first : 16;
    for (int j = 0; j < here; ++j) {
      // Blocks lie anywhere, so the processor cannot guess: ask for this position's value and for a later key.
      const int at = first + j;
      values.prefetch_row(rows[at] * width, width);
      if (at + 16 < count) keys.prefetch_row(rows[at + 16] * width, width);
      if constexpr (kCoded) key_scales[at] = kv.key_scales[rows[at]], value_scales[at] = kv.value_scales[rows[at]];
      F32 acc[R];
      repeat<R>([&](auto r) FOVEAL_INLINE { acc[r] = zero(); });
      const auto chunk = [&](int c) FOVEAL_INLINE {
        const int n = lanes_of(c);
        const F32 key = keys.load_at(rows[at] * width + 16 * c, n);
        repeat<R>([&](auto r) FOVEAL_INLINE {
          const float* q = queries + r * width + 16 * c;
          acc[r] = fma(n == 16 ? load(q) : load_n(q, n), key, acc[r]);
        });
      };
      if constexpr (kWide > 0) {
        repeat<kWide>(chunk);
      } else {
        for (int c = 0; c < chunks; ++c) chunk(c);
      }
      repeat<R>([&](auto r) FOVEAL_INLINE { store(lanes[r][j], acc[r]); });
    }
    for (int j = here; j < 16; ++j) {
      for (int r = 0; r < R; ++r) store(lanes[r][j], zero());
      key_scales[first + j] = value_scales[first + j] = 0.0f;
    }
    for (int r = 0; r < R; ++r) {
      F32 score = sum_of_each(lanes[r]);
      if constexpr (kCoded) score = mul(score, load(key_scales + first));
      store(scores[r] + first, score);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = count; j < 16 * groups; ++j) scores[r][j] = -__builtin_inff();  // weighs nothing beside the largest
    F32 top = load(scores[r]), added = zero();
    for (int g = 1; g < groups; ++g) top = max(top, load(scores[r] + 16 * g));
    most[r] = reduce_max(top);
    for (int g = 0; g < groups; ++g) {
      F32 weights = exponential(sub(load(scores[r] + 16 * g), set1(most[r])));
      added = add(added, weights);
      if constexpr (kCoded) weights = mul(weights, load(value_scales + 16 * g));
      store(scores[r] + 16 * g, weights);
    }
    total[r] = reduce_add(added);
  }
  constexpr int kTogether = values_together(R, kWide);
  for (int c = 0; c < chunks; c += kTogether) {
    const int n = lanes_of(c);
    F32 acc[kTogether][R];
    repeat<kTogether>([&](auto t) FOVEAL_INLINE {
      repeat<R>([&](auto r) FOVEAL_INLINE { acc[t][r] = zero(); });
    });
    for (int j = 0; j < count; ++j) {
      F32 weights[R];
      repeat<R>([&](auto r) FOVEAL_INLINE { weights[r] = set1(scores[r][j]); });
      repeat<kTogether>([&](auto t) FOVEAL_INLINE {
        const F32 value = values.load_at(rows[j] * width + 16 * (c + t), n);
        repeat<R>([&](auto r) FOVEAL_INLINE { acc[t][r] = fma(weights[r], value, acc[t][r]); });
      });
    }
    repeat<kTogether>([&](auto t) FOVEAL_INLINE {
      repeat<R>([&](auto r) FOVEAL_INLINE {
        float* sum = sums + r * width + 16 * (c + t);
        if (n == 16) {
          store(sum, acc[t][r]);
        } else {
          store_n(sum, acc[t][r], n);
        }
      });
    });
  }
}

template <int R, KvKind kKind>
static void attend_kind(const KvLayer& kv, const AttentionSpan& span, const float* q, float* sums, float* most,
                        float* total) {
  if (kv.head_dim == 64) {
    attend_rows<R, 4, kKind>(kv, span, q, sums, most, total);
  } else if (kv.head_dim == 128) {
    attend_rows<R, 8, kKind>(kv, span, q, sums, most, total);
  } else {
    attend_rows<R, 0, kKind>(kv, span, q, sums, most, total);
  }
}

template <int R>
static void attend_width(const KvLayer& kv, const AttentionSpan& span, const float* q, float* sums, float* most,
                         float* total) {
  switch (kv.kind) {
    case KvKind::kFloat32:
      return attend_kind<R, KvKind::kFloat32>(kv, span, q, sums, most, total);
    case KvKind::kFloat16:
      return attend_kind<R, KvKind::kFloat16>(kv, span, q, sums, most, total);
    case KvKind::kInt8:
      return attend_kind<R, KvKind::kInt8>(kv, span, q, sums, most, total);
  }
}

template <int R>
static void attend_some(int rows, const KvLayer& kv, const AttentionSpan& span, const float* q, float* sums, float* most,
                        float* total) {
  if constexpr (R > 1)
    if (rows < R) return attend_some<R - 1>(rows, kv, span, q, sums, most, total);
  attend_width<R>(kv, span, q, sums, most, total);
}

static void attend_token(const KvLayer& kv, const AttentionSpan& span, const float* queries, int group, float* sums,
                         float* most, float* total) {
  // Equal parts: 9 rows are 5 and 4, not 8 and 1.
  for (int r = 0, parts = (group + kAttendRows - 1) / kAttendRows; r < group; --parts) {
    const int taken = (group - r + parts - 1) / parts, at = r * kv.head_dim;
    attend_some<kAttendRows>(taken, kv, span, queries + at, sums + at, most + r, total + r);
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

template <KvKind kKind>
static void fill_tile(const KvLayer& kv, const AttentionSpan& span, int from, int count, int panels, float* keys,
                      float* values) {
  const int width = kv.head_dim;
  const KvReader<kKind> key_reader(kv.key), value_reader(kv.value);
  RowCursor cursor(span, kv.kv_heads, from);
  for (int j = 0; j < kKeyTile; ++j) {
    float* column = keys + j / kPanel * width * kPanel + j % kPanel;
    if (j >= count) {
      for (int i = 0; i < width; ++i) column[i * kPanel] = 0.0f;
      for (int p = 0; p < panels; ++p)
        for (int i = 0; i < kPanel; ++i) values[(p * kKeyTile + j) * kPanel + i] = 0.0f;
      continue;
    }
    const int64_t row = cursor.next();
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
    switch (kv.kind) {
      case KvKind::kFloat32:
        fill_tile<KvKind::kFloat32>(kv, span, from, count, panels, keys, values);
        break;
      case KvKind::kFloat16:
        fill_tile<KvKind::kFloat16>(kv, span, from, count, panels, keys, values);
        break;
      case KvKind::kInt8:
        fill_tile<KvKind::kInt8>(kv, span, from, count, panels, keys, values);
        break;
    }
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
