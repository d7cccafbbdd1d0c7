// Products of rows with a panel of 32 outputs. Sums of a row are formed in the same order whatever the number of
// rows, so a token's result does not depend on what else is in the batch.

// Sums of a tile, in memory: the integer sums of one group need the registers.
template <int M>
struct Tile {
  alignas(64) float v[M][kPanel];

  void clear() {
    for (int m = 0; m < M; ++m) store(v[m], zero()), store(v[m] + 16, zero());
  }
  // v[m] += a * scale
  FOVEAL_INLINE void add_scaled(int m, F32 a0, F32 a1, F32 scale) {
    store(v[m], fma(a0, scale, load(v[m])));
    store(v[m] + 16, fma(a1, scale, load(v[m] + 16)));
  }
};

// Without this GCC lifts a tile's sums into registers, and then writes integer sums to memory at every step instead.
#define FOVEAL_SUMS_STAY_IN_MEMORY() asm volatile("" ::: "memory")

template <WeightKind kKind>
static inline F32 load_16_bits(const uint16_t* p) {
  return kKind == WeightKind::kFloat16 ? load_half(p) : load_bfloat(p);
}

template <int M, WeightKind kKind>
static inline void float_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  constexpr bool kWide = kKind == WeightKind::kFloat32;
  const float* a = x.values + static_cast<int64_t>(row) * x.stride;
  const int64_t at = static_cast<int64_t>(panel) * w.k * kPanel;
  const float* wide = static_cast<const float*>(w.data) + (kWide ? at : 0);
  const uint16_t* narrow = static_cast<const uint16_t*>(w.data) + (kWide ? 0 : at);
  F32 acc[M][2];
  repeat<M>([&](auto m) FOVEAL_INLINE { acc[m][0] = acc[m][1] = zero(); });
  for (int k = 0; k < w.k; ++k, wide += kPanel, narrow += kPanel) {
    const F32 w0 = kWide ? load(wide) : load_16_bits<kKind>(narrow);
    const F32 w1 = kWide ? load(wide + 16) : load_16_bits<kKind>(narrow + 16);
    if (M <= 2) prefetch(kWide ? static_cast<const void*>(wide + 1024) : narrow + 2048);
    if (M <= 2 && kWide) prefetch(wide + 1040);
    repeat<M>([&](auto m) FOVEAL_INLINE {
      const F32 input = set1(a[static_cast<int64_t>(m) * x.stride + k]);
      acc[m][0] = fma(input, w0, acc[m][0]);
      acc[m][1] = fma(input, w1, acc[m][1]);
    });
  }
  repeat<M>([&](auto m) FOVEAL_INLINE { store(sum.v[m], acc[m][0]), store(sum.v[m] + 16, acc[m][1]); });
}

template <int M, bool kHasScales>
static inline void int8_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const int groups = w.k / kGroup, per_scale = kHasScales ? w.group / kGroup : 0;
  const int64_t stride = w.k;
  const uint16_t* of_weights = kHasScales ? w.scales + static_cast<int64_t>(panel) * (w.k / w.group) * kPanel : nullptr;
  const uint8_t* p = static_cast<const uint8_t*>(w.data) + static_cast<int64_t>(panel) * w.k * kPanel;
  const int8_t* a = x.codes + row * stride;
  const float* scales = x.scales + static_cast<int64_t>(row) * groups;
  const int32_t* seeds = x.seeds + static_cast<int64_t>(row) * groups;
  sum.clear();
  for (int g = 0, of_scale = 0; g < groups; ++g, ++scales, ++seeds) {
    I32 acc[M][2];
    repeat<M>([&](auto m) FOVEAL_INLINE { acc[m][0] = acc[m][1] = set1_int(seeds[m * groups]); });
    for (int s = 0; s < kGroup / 4; ++s, p += 4 * kPanel, a += 4) {
      const Bytes w0 = load_bytes(p), w1 = load_bytes(p + 64);
      if (M <= 2) prefetch(p + 4096), prefetch(p + 4160);
      repeat<M>([&](auto m) FOVEAL_INLINE {
        acc[m][0] = dot_bytes(acc[m][0], w0, four_inputs(a + m * stride));
        acc[m][1] = dot_bytes(acc[m][1], w1, four_inputs(a + m * stride));
      });
    }
    if constexpr (kHasScales) {
      const F32 s0 = load_half(of_weights), s1 = load_half(of_weights + 16);
      repeat<M>([&](auto m) FOVEAL_INLINE {
        sum.add_scaled(m, mul(to_float(acc[m][0]), s0), mul(to_float(acc[m][1]), s1), set1(scales[m * groups]));
      });
      if (++of_scale == per_scale) of_scale = 0, of_weights += kPanel;
    } else {
      repeat<M>([&](auto m) FOVEAL_INLINE {
        sum.add_scaled(m, to_float(acc[m][0]), to_float(acc[m][1]), set1(scales[m * groups]));
      });
    }
    FOVEAL_SUMS_STAY_IN_MEMORY();
  }
}

template <int M, bool kHasMinimums>
static inline void int4_tile(const Matrix& w, const Inputs& x, int row, int panel, Tile<M>& sum) {
  const int groups = w.k / kGroup, per_scale = w.group / kGroup;
  const int64_t stride = w.k;
  int64_t at = static_cast<int64_t>(panel) * (w.k / w.group) * kPanel;  // of the group's scales
  const uint8_t* p = static_cast<const uint8_t*>(w.data) + static_cast<int64_t>(panel) * w.k * (kPanel / 2);
  const int8_t* a = x.codes + row * stride;
  const float* scales = x.scales + static_cast<int64_t>(row) * groups;
  const float* sums = x.sums + static_cast<int64_t>(row) * groups;
  const int32_t* seeds = x.seeds + static_cast<int64_t>(row) * groups;
  sum.clear();
  for (int g = 0, of_scale = 0; g < groups; ++g, ++scales, ++seeds, ++sums) {
    I32 acc[M][2];
    repeat<M>([&](auto m) FOVEAL_INLINE { acc[m][0] = acc[m][1] = set1_int(seeds[m * groups]); });
    for (int t = 0; t < kGroup / 8; ++t, p += 4 * kPanel, a += 8) {
      const Bytes v0 = load_bytes(p), v1 = load_bytes(p + 64);
      if (M <= 2) prefetch(p + 4096), prefetch(p + 4160);
      const Bytes low0 = low_nibbles(v0), low1 = low_nibbles(v1);
      const Bytes high0 = high_nibbles(v0), high1 = high_nibbles(v1);
      repeat<M>([&](auto m) FOVEAL_INLINE {
        acc[m][0] = dot_nibbles(acc[m][0], low0, four_inputs(a + m * stride));
        acc[m][1] = dot_nibbles(acc[m][1], low1, four_inputs(a + m * stride));
        acc[m][0] = dot_nibbles(acc[m][0], high0, four_inputs(a + m * stride + 4));
        acc[m][1] = dot_nibbles(acc[m][1], high1, four_inputs(a + m * stride + 4));
      });
    }
    const F32 s0 = load_half(w.scales + at), s1 = load_half(w.scales + at + 16);
    repeat<M>([&](auto m) FOVEAL_INLINE {
      sum.add_scaled(m, mul(to_float(acc[m][0]), s0), mul(to_float(acc[m][1]), s1), set1(scales[m * groups]));
    });
    if constexpr (kHasMinimums) {
      const F32 low0 = load_half(w.minimums + at), low1 = load_half(w.minimums + at + 16);
      repeat<M>([&](auto m) FOVEAL_INLINE { sum.add_scaled(m, low0, low1, set1(sums[m * groups])); });
    }
    if (++of_scale == per_scale) of_scale = 0, at += kPanel;
    FOVEAL_SUMS_STAY_IN_MEMORY();
  }
}

static inline F32 silu(F32 x) { return div(x, add(set1(1.0f), exponential(sub(zero(), x)))); }

static inline void add_or_store(float* y, F32 v, int lanes, bool adds) {
  if (lanes <= 0) return;
  if (lanes >= 16) {
    store(y, adds ? add(load(y), v) : v);
  } else {
    store_n(y, adds ? add(load_n(y, lanes), v) : v, lanes);
  }
}

// Rows of finished sums [M][stride] of one panel to where they belong.
static inline void finish_rows(const Matrix& w, const float* sums, int stride, int row, int count, int panel,
                               const Output& out) {
  const int column = panel * kPanel;
  for (int m = 0; m < count; ++m, sums += stride) {
    F32 a = load(sums), b = load(sums + 16);
    if (w.channel != nullptr) a = mul(a, load(w.channel + column)), b = mul(b, load(w.channel + column + 16));
    if (w.bias != nullptr) a = add(a, load(w.bias + column)), b = add(b, load(w.bias + column + 16));
    float* y = out.y + static_cast<int64_t>(row + m) * out.stride;
    if (out.finish == Finish::kSiluMul) {
      const int at = panel * (kPanel / 2);
      add_or_store(y + at, mul(silu(a), b), out.columns - at, false);
    } else {
      const bool adds = out.finish == Finish::kAdd;
      add_or_store(y + column, a, out.columns - column, adds);
      add_or_store(y + column + 16, b, out.columns - column - 16, adds);
    }
  }
}

template <int M>
static void tile(const Matrix& w, const Inputs& x, int row, int panel, const Output& out) {
  Tile<M> sum;
  switch (w.kind) {
    case WeightKind::kFloat32:
      float_tile<M, WeightKind::kFloat32>(w, x, row, panel, sum);
      break;
    case WeightKind::kFloat16:
      float_tile<M, WeightKind::kFloat16>(w, x, row, panel, sum);
      break;
    case WeightKind::kBfloat16:
      float_tile<M, WeightKind::kBfloat16>(w, x, row, panel, sum);
      break;
    case WeightKind::kInt8:
      if constexpr (M <= kStreamedRows) {
        if (w.scales != nullptr) {
          int8_tile<M, true>(w, x, row, panel, sum);
        } else {
          int8_tile<M, false>(w, x, row, panel, sum);
        }
      }
      break;
    case WeightKind::kInt4:
      if constexpr (M <= kStreamedRows) {
        if (w.minimums != nullptr) {
          int4_tile<M, true>(w, x, row, panel, sum);
        } else {
          int4_tile<M, false>(w, x, row, panel, sum);
        }
      }
      break;
  }
  finish_rows(w, sum.v[0], kPanel, row, M, panel, out);
}

// Many rows of integer products. A piece of up to eight groups of inputs of one or two panels is read for all rows of a
// block while it lies in the first-level cache; 4-bit codes are unpacked into that piece once.
constexpr int kPieceGroups = 8;
constexpr int kBlockRows = 72;  // their sums, of two panels, are 18 KiB

struct Piece {
  const uint8_t* codes[2];         // per panel [groups][8][32][4]
  const float *scales, *minimums;  // of weights, [groups][P * 32]
  int group, groups;  // first of the matrix's groups
};

// Weights that are needed next, asked for a little with every step of a tile.
struct Ahead {
  const uint8_t* codes;
  int64_t to_second;
  int64_t step;
};

enum class Scaling { kPerChannel, kPerGroup, kPerGroupWithMinimum };

// sums [M][P * 32] += rows of inputs times a piece of P panels.
template <int M, int P, WeightKind kKind, Scaling kScaling>
static void piece_tile(const Inputs& x, int64_t groups, int row, const Piece& piece, const Ahead& ahead,
                       float* sums) {
  constexpr int kWide = 2 * P;
  const int64_t stride = groups * kGroup;
  const int8_t* a = x.codes + row * stride + static_cast<int64_t>(piece.group) * kGroup;
  const int64_t first = row * groups + piece.group;
  const float *scales = x.scales + first, *totals = x.sums + first;
  const float *of_weights = piece.scales, *minimums = piece.minimums;
  const int32_t* seeds = x.seeds + first;
  const uint8_t* p = piece.codes[0];
  const int64_t to_second = P > 1 ? piece.codes[1] - p : 0;
  const uint8_t* next = ahead.codes;
  const int64_t to_next = ahead.to_second, step = ahead.step;
  for (int g = 0; g < piece.groups; ++g) {
    I32 acc[M][kWide];
    repeat<M>([&](auto m) FOVEAL_INLINE {
      const I32 seed = set1_int(seeds[m * groups]);
      repeat<kWide>([&](auto c) FOVEAL_INLINE { acc[m][c] = seed; });
    });
    const auto finish = [&](auto m) FOVEAL_INLINE {
      const F32 scale = set1(scales[m * groups]);
      repeat<kWide>([&](auto c) FOVEAL_INLINE {
        float* sum = sums + m * P * kPanel + c * 16;
        F32 product = to_float(acc[m][c]);
        if constexpr (kScaling != Scaling::kPerChannel) product = mul(product, load(of_weights + c * 16));
        F32 next = fma(product, scale, load(sum));
        if constexpr (kScaling == Scaling::kPerGroupWithMinimum)
          next = fma(load(minimums + c * 16), set1(totals[m * groups]), next);
        store(sum, next);
      });
    };
    repeat<kGroup / 4>([&](auto s) FOVEAL_INLINE {
      Bytes codes[kWide];
      repeat<kWide>([&](auto c) FOVEAL_INLINE {
        codes[c] = load_bytes(p + (c / 2) * to_second + s * 4 * kPanel + c % 2 * 64);
      });
      prefetch(next);
      if constexpr (P > 1) prefetch(next + to_next);
      next += step;
      repeat<M>([&](auto m) FOVEAL_INLINE {
        const Four input = four_inputs(a + m * stride + 4 * s);
        repeat<kWide>([&](auto c) FOVEAL_INLINE {
          acc[m][c] = kKind == WeightKind::kInt8 ? dot_bytes(acc[m][c], codes[c], input)
                                                 : dot_nibbles(acc[m][c], codes[c], input);
        });
        // One row behind: what waits for a sum would fill the scheduler and keep the next rows out.
        if constexpr (s == kGroup / 4 - 1 && m > 0) finish(Index<m - 1>{});
      });
    });
    finish(Index<M - 1>{});
    ++scales, ++totals, ++seeds, a += kGroup, p += kGroup * kPanel;
    if constexpr (kScaling != Scaling::kPerChannel) of_weights += P * kPanel, minimums += P * kPanel;
    FOVEAL_SUMS_STAY_IN_MEMORY();
  }
}

// [groups][4][32][4] bytes of two codes each -> [groups][8][32][4]
static inline void unpack(const uint8_t* p, int groups, uint8_t* out) {
  for (int i = 0; i < groups * (kGroup / 8); ++i, p += 4 * kPanel, out += 8 * kPanel) {
    const Bytes v0 = load_bytes(p), v1 = load_bytes(p + 64);
    store_bytes(out, low_nibbles(v0));
    store_bytes(out + 64, low_nibbles(v1));
    store_bytes(out + 128, high_nibbles(v0));
    store_bytes(out + 192, high_nibbles(v1));
  }
}

// Scales (or minimums) of a piece's groups of one panel, as floats.
static inline void widen_halves(const uint16_t* halves, const Matrix& w, int panel, const Piece& piece, float* out,
                                int stride) {
  const int per_scale = w.group / kGroup;
  const uint16_t* row = halves + (static_cast<int64_t>(panel) * (w.k / w.group) + piece.group / per_scale) * kPanel;
  for (int g = 0, of_scale = piece.group % per_scale; g < piece.groups; ++g, out += stride) {
    store(out, load_half(row)), store(out + 16, load_half(row + 16));
    if (++of_scale == per_scale) of_scale = 0, row += kPanel;
  }
}

template <int P, WeightKind kKind, Scaling kScaling>
static void block_of_rows(const Matrix& w, const Inputs& x, int row, int rows, int panel, const Output& out) {
  alignas(64) float sums[kBlockRows * P * kPanel];
  constexpr bool kUnpacks = kKind == WeightKind::kInt4, kHasScales = kScaling != Scaling::kPerChannel;
  alignas(64) uint8_t unpacked[P][kUnpacks ? kPieceGroups * kGroup * kPanel : 64];
  alignas(64) float scales[kHasScales ? kPieceGroups * P * kPanel : 16];
  alignas(64) float minimums[kScaling == Scaling::kPerGroupWithMinimum ? kPieceGroups * P * kPanel : 16];
  for (int i = 0; i < rows * P * kPanel; i += 16) store(sums + i, zero());
  const int groups = w.k / kGroup, pieces = (groups + kPieceGroups - 1) / kPieceGroups;
  const int tiles = (rows + kTileRows - 1) / kTileRows;
  const auto first_group = [&](int n) { return groups * n / pieces; };
  const auto codes_of = [&](int at_panel, int group) {
    return static_cast<const uint8_t*>(w.data) +
           (static_cast<int64_t>(at_panel) * groups + group) * (kGroup * kPanel / (kUnpacks ? 2 : 1));
  };
  for (int n = 0; n < pieces; ++n) {
    Piece piece{};
    piece.group = first_group(n), piece.groups = first_group(n + 1) - piece.group;
    for (int p = 0; p < P; ++p) {
      piece.codes[p] = codes_of(panel + p, piece.group);
      if constexpr (kUnpacks) {
        unpack(piece.codes[p], piece.groups, unpacked[p]);
        piece.codes[p] = unpacked[p];
      }
      if constexpr (kHasScales) {
        widen_halves(w.scales, w, panel + p, piece, scales + p * kPanel, P * kPanel);
        if constexpr (kScaling == Scaling::kPerGroupWithMinimum)
          widen_halves(w.minimums, w, panel + p, piece, minimums + p * kPanel, P * kPanel);
      }
    }
    piece.scales = scales, piece.minimums = minimums;
    Ahead ahead{piece.codes[0], 0, 0};
    const bool same = n + 1 < pieces;  // panels
    const int next_panel = same ? panel : panel + P;
    if (next_panel + P <= w.n / kPanel) {
      const int from = same ? first_group(n + 1) : 0, to = same ? first_group(n + 2) : first_group(1);
      ahead.codes = codes_of(next_panel, from);
      if constexpr (P > 1) ahead.to_second = codes_of(next_panel + 1, from) - ahead.codes;
      ahead.step = (codes_of(next_panel, to) - ahead.codes) / (tiles * piece.groups * kGroup / 4);
    }
    for (int t = 0; t < tiles; ++t) {
      const int first = rows * t / tiles, count = rows * (t + 1) / tiles - first;
      float* sum = sums + first * P * kPanel;
      repeat<kTileRows>([&](auto m) FOVEAL_INLINE {
        if (count == m + 1) piece_tile<m + 1, P, kKind, kScaling>(x, groups, row + first, piece, ahead, sum);
      });
      ahead.codes += ahead.step * piece.groups * (kGroup / 4);
    }
  }
  for (int p = 0; p < P; ++p) finish_rows(w, sums + p * kPanel, P * kPanel, row, rows, panel + p, out);
}

template <int P>
static void integer_panels(const Matrix& w, const Inputs& x, int rows, int panel, const Output& out) {
  for (int row = 0; row < rows; row += kBlockRows) {
    const int count = rows - row < kBlockRows ? rows - row : kBlockRows;
    if (w.kind == WeightKind::kInt8 && w.scales == nullptr) {
      block_of_rows<P, WeightKind::kInt8, Scaling::kPerChannel>(w, x, row, count, panel, out);
    } else if (w.kind == WeightKind::kInt8) {
      block_of_rows<P, WeightKind::kInt8, Scaling::kPerGroup>(w, x, row, count, panel, out);
    } else if (w.minimums == nullptr) {
      block_of_rows<P, WeightKind::kInt4, Scaling::kPerGroup>(w, x, row, count, panel, out);
    } else {
      block_of_rows<P, WeightKind::kInt4, Scaling::kPerGroupWithMinimum>(w, x, row, count, panel, out);
    }
  }
}

// Rows go in tiles of these sizes, the largest that still fit first.
static inline int tile_rows(int left) {
  if (left >= kMaxRows) return kMaxRows;
  return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static void multiply(const Matrix& w, const Inputs& x, int rows, int first, int last, const Output& out) {
  if (w.is_quantised() && rows > kStreamedRows) {
    int panel = first;
    for (; panel + kTilePanels <= last; panel += kTilePanels) integer_panels<kTilePanels>(w, x, rows, panel, out);
    for (; panel < last; ++panel) integer_panels<1>(w, x, rows, panel, out);
    return;
  }
  // The panel stays in the cache while all rows pass by.
  for (int panel = first; panel < last; ++panel) {
    for (int row = 0; row < rows;) {
      const int taken = tile_rows(rows - row);
      if (taken == kMaxRows) tile<kMaxRows>(w, x, row, panel, out);
      if constexpr (kMaxRows > 2) {
        if (taken == 8) tile<8>(w, x, row, panel, out);
        if (taken == 4) tile<4>(w, x, row, panel, out);
        if (taken == 2) tile<2>(w, x, row, panel, out);
      }
      if (taken == 1) tile<1>(w, x, row, panel, out);
      row += taken;
    }
  }
}
