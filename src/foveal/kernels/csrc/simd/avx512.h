// Sixteen lanes in one AVX-512 register; byte products by VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace foveal::avx512 {

using F32 = __m512;
using I32 = __m512i;
using Bytes = __m512i;  // 64 unsigned bytes
using Four = __m512i;   // four inputs, sixteen times

// Query heads that share what is read of a cache, and sums of their values that fit the registers.
constexpr int kAttendRows = 8, kAttendSums = 16;
// 12 rows x 2 registers of sums leave 8 of the 32 registers for weights and inputs.
constexpr int kMaxRows = 12;
// Integer products of more rows than this go through the first-level cache piece by piece, in tiles of 6 rows x 2 panels:
// 24 sums, 4 registers of weights, one of inputs.
constexpr int kStreamedRows = 2;
constexpr int kTileRows = 6, kTilePanels = 2;

static inline F32 zero() { return _mm512_setzero_ps(); }
static inline F32 set1(float x) { return _mm512_set1_ps(x); }
static inline F32 load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, F32 v) { _mm512_storeu_ps(p, v); }
static inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1u); }
static inline F32 load_n(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline void store_n(float* p, F32 v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
static inline F32 add(F32 a, F32 b) { return _mm512_add_ps(a, b); }
static inline F32 sub(F32 a, F32 b) { return _mm512_sub_ps(a, b); }
static inline F32 mul(F32 a, F32 b) { return _mm512_mul_ps(a, b); }
static inline F32 div(F32 a, F32 b) { return _mm512_div_ps(a, b); }
static inline F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
static inline F32 min(F32 a, F32 b) { return _mm512_min_ps(a, b); }
static inline F32 max(F32 a, F32 b) { return _mm512_max_ps(a, b); }
static inline F32 abs(F32 a) { return _mm512_abs_ps(a); }
static inline F32 nearest(F32 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F32 power_of_two(F32 whole) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), whole); }
// Bit i: lane i of a is at least that of b.
static inline uint32_t at_least(F32 a, F32 b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
static inline float reduce_add(F32 v) { return _mm512_reduce_add_ps(v); }
static inline float reduce_max(F32 v) { return _mm512_reduce_max_ps(v); }

static inline I32 set1_int(int32_t x) { return _mm512_set1_epi32(x); }
static inline F32 to_float(I32 v) { return _mm512_cvtepi32_ps(v); }
static inline I32 to_int(F32 v) { return _mm512_cvtps_epi32(v); }
static inline I32 add_int(I32 a, I32 b) { return _mm512_add_epi32(a, b); }

// Lane i of the result is f over the lanes of rows[i].
template <typename F>
static inline F32 across(const float (*rows)[16], F f) {
  __m512 eight[8], four[4];
  for (int i = 0; i < 8; ++i) {
    const __m512 a = _mm512_load_ps(rows[i]), b = _mm512_load_ps(rows[i + 8]);
    eight[i] = f(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(eight[i]), b = _mm512_castps_pd(eight[i + 4]);
    four[i] = f(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  const auto halve = [&](__m512 a, __m512 b) {
    return f(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  const __m512 last = halve(halve(four[0], four[2]), halve(four[1], four[3]));
  // Its lanes are rows 0 8 4 12, 2 10 6 14, 1 9 5 13, 3 11 7 15.
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15), last);
}
static inline F32 largest_of_each(const float (*rows)[16]) {
  return across(rows, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); });
}
static inline F32 sum_of_each(const float (*rows)[16]) {
  return across(rows, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
}
static inline void store_int8(int8_t* p, I32 v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v));
}

static inline F32 load_int8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
static inline F32 load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline void store_half(uint16_t* p, F32 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline F32 load_bfloat(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline Bytes low_nibbles(Bytes v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
static inline Bytes high_nibbles(Bytes v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }
static inline void store_bytes(uint8_t* p, Bytes v) { _mm512_storeu_si512(p, v); }
static inline Four four_inputs(const int8_t* x) {
  int32_t four;
  std::memcpy(&four, x, 4);
  return _mm512_set1_epi32(four);
}
// acc[i] += sum over j < 4 of w[4 i + j] * x[j]
static inline I32 dot_bytes(I32 acc, Bytes w, Four x) {
  // Not the intrinsic: with 24 sums GCC 12 allocates registers so badly around it that each sum is copied and stored at
  // every step.
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(x));
  return acc;
}
static inline I32 dot_nibbles(I32 acc, Bytes w, Four x) { return dot_bytes(acc, w, x); }

// Not the intrinsic: GCC 12 finds a function that only prefetches to be without effect and drops most calls.
static inline void prefetch(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p))); }

}  // namespace foveal::avx512
