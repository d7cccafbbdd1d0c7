// Sixteen lanes in two AVX2 registers, with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace foveal::avx2 {

struct F32 {
  __m256 a, b;
};
struct I32 {
  __m256i a, b;
};
struct Bytes {
  __m256i a, b;
};
using Four = __m256i;  // four inputs, eight times

// Query heads that share what is read of a cache, and sums of their values that fit the registers.
constexpr int kAttendRows = 4, kAttendSums = 4;
// 2 rows x 4 registers of sums: there are 16.
constexpr int kMaxRows = 2;
constexpr int kStreamedRows = 2, kTileRows = 2, kTilePanels = 1;

static inline F32 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline F32 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, F32 v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
static inline F32 load_n(const float* p, int n) {
  float lanes[16] = {};
  std::memcpy(lanes, p, sizeof(float) * n);
  return load(lanes);
}
static inline void store_n(float* p, F32 v, int n) {
  float lanes[16];
  store(lanes, v);
  std::memcpy(p, lanes, sizeof(float) * n);
}
static inline F32 add(F32 x, F32 y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
static inline F32 sub(F32 x, F32 y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
static inline F32 mul(F32 x, F32 y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
static inline F32 div(F32 x, F32 y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
static inline F32 fma(F32 x, F32 y, F32 z) {
  return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline F32 min(F32 x, F32 y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
static inline F32 max(F32 x, F32 y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
static inline F32 abs(F32 x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
}
static inline F32 nearest(F32 x) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}
static inline F32 power_of_two(F32 whole) {
  const __m256i bias = _mm256_set1_epi32(127);
  const auto one = [&](__m256 v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(v), bias), 23));
  };
  return {one(whole.a), one(whole.b)};
}
// Bit i: lane i of x is at least that of y.
static inline uint32_t at_least(F32 x, F32 y) {
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ));
  const int high = _mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ));
  return static_cast<uint32_t>(low | high << 8);
}
static inline float reduce_add(F32 v) {
  const __m256 sum = _mm256_add_ps(v.a, v.b);
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_shuffle_ps(half, half, 1)));
}
static inline float reduce_max(F32 v) {
  const __m256 most = _mm256_max_ps(v.a, v.b);
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}

static inline I32 set1_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
static inline F32 to_float(I32 v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
static inline I32 to_int(F32 v) { return {_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)}; }
static inline I32 add_int(I32 x, I32 y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
// Lane i of the result is over the lanes of rows[i].
static inline F32 largest_of_each(const float (*rows)[16]) {
  float each[16];
  for (int i = 0; i < 16; ++i) each[i] = reduce_max(load(rows[i]));
  return load(each);
}
static inline F32 sum_of_each(const float (*rows)[16]) {
  float each[16];
  for (int i = 0; i < 16; ++i) each[i] = reduce_add(load(rows[i]));
  return load(each);
}
static inline void store_int8(int8_t* p, I32 v) {
  const __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(v.a), _mm256_extracti128_si256(v.a, 1));
  const __m128i high = _mm_packs_epi32(_mm256_castsi256_si128(v.b), _mm256_extracti128_si256(v.b, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(low, high));
}

static inline F32 load_int8(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
static inline F32 load_half(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
static inline void store_half(uint16_t* p, F32 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
static inline F32 load_bfloat(const uint16_t* p) {
  const auto widen = [](const uint16_t* q) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  };
  return {widen(p), widen(p + 8)};
}

static inline Bytes load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
static inline Bytes low_nibbles(Bytes v) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(v.a, mask), _mm256_and_si256(v.b, mask)};
}
static inline Bytes high_nibbles(Bytes v) {
  return low_nibbles({_mm256_srli_epi16(v.a, 4), _mm256_srli_epi16(v.b, 4)});
}
static inline void store_bytes(uint8_t* p, Bytes v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), v.b);
}
static inline Four four_inputs(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}
// acc[i] += sum over j < 4 of w[4 i + j] * x[j], w at most 15: pairs fit 16 bits.
static inline I32 dot_nibbles(I32 acc, Bytes w, Four input) {
  const __m256i ones = _mm256_set1_epi16(1);
  const auto one = [&](__m256i sum, __m256i v) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(v, input), ones));
  };
  return {one(acc.a, w.a), one(acc.b, w.b)};
}
// The same for whole bytes. Pairs of 255 * 127 would saturate 16 bits, so the top bit is multiplied apart.
static inline I32 dot_bytes(I32 acc, Bytes w, Four input) {
  const __m256i ones = _mm256_set1_epi16(1), weight = _mm256_set1_epi16(128);
  const __m256i low = _mm256_set1_epi8(127), bit = _mm256_set1_epi8(1);
  const auto one = [&](__m256i sum, __m256i v) {
    const __m256i small = _mm256_maddubs_epi16(_mm256_and_si256(v, low), input);
    const __m256i top = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(v, 7), bit), input);
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(small, ones), _mm256_madd_epi16(top, weight)));
  };
  return {one(acc.a, w.a), one(acc.b, w.b)};
}

// Not the intrinsic: GCC 12 finds a function that only prefetches to be without effect and drops most calls.
static inline void prefetch(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p))); }

}  // namespace foveal::avx2
