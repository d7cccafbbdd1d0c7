// Sixteen lanes as an array: any processor, and the plainest statement of what the other two compute.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace foveal::portable {

struct F32 {
  float v[16];
};
struct I32 {
  int32_t v[16];
};
struct Bytes {
  uint8_t v[64];
};
using Four = const int8_t*;

// Query heads that share what is read of a cache, and sums of their values that fit the registers.
constexpr int kAttendRows = 4, kAttendSums = 4;
constexpr int kMaxRows = 2;
constexpr int kStreamedRows = 2, kTileRows = 2, kTilePanels = 1;

template <typename F>
static inline F32 lanes(F f) {
  F32 r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}

static inline F32 set1(float x) {
  return lanes([&](int) { return x; });
}
static inline F32 zero() { return set1(0.0f); }
static inline F32 load_n(const float* p, int n) {
  return lanes([&](int i) { return i < n ? p[i] : 0.0f; });
}
static inline F32 load(const float* p) { return load_n(p, 16); }
static inline void store_n(float* p, F32 v, int n) { std::memcpy(p, v.v, sizeof(float) * n); }
static inline void store(float* p, F32 v) { store_n(p, v, 16); }
static inline F32 add(F32 a, F32 b) {
  return lanes([&](int i) { return a.v[i] + b.v[i]; });
}
static inline F32 sub(F32 a, F32 b) {
  return lanes([&](int i) { return a.v[i] - b.v[i]; });
}
static inline F32 mul(F32 a, F32 b) {
  return lanes([&](int i) { return a.v[i] * b.v[i]; });
}
static inline F32 div(F32 a, F32 b) {
  return lanes([&](int i) { return a.v[i] / b.v[i]; });
}
static inline F32 fma(F32 a, F32 b, F32 c) {
  return lanes([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
static inline F32 min(F32 a, F32 b) {
  return lanes([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
static inline F32 max(F32 a, F32 b) {
  return lanes([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
static inline F32 abs(F32 a) {
  return lanes([&](int i) { return ::fabsf(a.v[i]); });
}
static inline F32 nearest(F32 a) {
  return lanes([&](int i) { return ::nearbyintf(a.v[i]); });
}
static inline F32 power_of_two(F32 whole) {
  return lanes([&](int i) { return ::exp2f(whole.v[i]); });
}
// Bit i: lane i of a is at least that of b.
static inline uint32_t at_least(F32 a, F32 b) {
  uint32_t bits = 0;
  for (int i = 0; i < 16; ++i) bits |= static_cast<uint32_t>(a.v[i] >= b.v[i]) << i;
  return bits;
}
static inline float reduce_add(F32 v) {
  float sum = 0.0f;
  for (const float lane : v.v) sum += lane;
  return sum;
}
static inline float reduce_max(F32 v) {
  float most = v.v[0];
  for (const float lane : v.v) most = lane > most ? lane : most;
  return most;
}

static inline I32 set1_int(int32_t x) {
  I32 r;
  for (int32_t& lane : r.v) lane = x;
  return r;
}
static inline F32 to_float(I32 v) {
  return lanes([&](int i) { return static_cast<float>(v.v[i]); });
}
static inline I32 to_int(F32 v) {
  I32 r;
  for (int i = 0; i < 16; ++i) r.v[i] = static_cast<int32_t>(::nearbyintf(v.v[i]));
  return r;
}
static inline I32 add_int(I32 a, I32 b) {
  for (int i = 0; i < 16; ++i) a.v[i] += b.v[i];
  return a;
}
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
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(v.v[i]);
}

static inline F32 load_int8(const int8_t* p) {
  return lanes([&](int i) { return static_cast<float>(p[i]); });
}
static inline float from_bits(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
static inline F32 load_half(const uint16_t* p) {
  return lanes([&](int i) {
    // By integers: the engine has the processor take subnormal floats for zero, and a half's are within a float's range.
    const uint32_t size = p[i] & 0x7fffu;
    const float magnitude =
        size < 0x400u ? static_cast<float>(size) * 0x1p-24f : from_bits((size << 13) + 0x38000000u);
    return p[i] & 0x8000u ? -magnitude : magnitude;
  });
}
// Rounds to the nearest, ties to even; |v| is at most 65504.
static inline void store_half(uint16_t* p, F32 v) {
  for (int i = 0; i < 16; ++i) {
    uint32_t bits;
    std::memcpy(&bits, &v.v[i], 4);
    const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size < 0x38800000u) {
      // A half's subnormal: adding 0.5 leaves multiples of 2^-24 in the last bits, rounded by the hardware.
      const float shifted = ::fabsf(v.v[i]) + 0.5f;
      std::memcpy(&bits, &shifted, 4);
      p[i] = static_cast<uint16_t>(sign | (bits - 0x3f000000u));
    } else {
      p[i] = static_cast<uint16_t>(sign | ((size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13));
    }
  }
}
static inline F32 load_bfloat(const uint16_t* p) {
  return lanes([&](int i) { return from_bits(static_cast<uint32_t>(p[i]) << 16); });
}

static inline Bytes load_bytes(const uint8_t* p) {
  Bytes r;
  std::memcpy(r.v, p, 64);
  return r;
}
static inline Bytes low_nibbles(Bytes b) {
  for (uint8_t& byte : b.v) byte &= 15;
  return b;
}
static inline Bytes high_nibbles(Bytes b) {
  for (uint8_t& byte : b.v) byte >>= 4;
  return b;
}
static inline void store_bytes(uint8_t* p, Bytes v) { std::memcpy(p, v.v, 64); }
static inline Four four_inputs(const int8_t* x) { return x; }
// acc[i] += sum over j < 4 of w[4 i + j] * x[j]
static inline I32 dot_bytes(I32 acc, Bytes w, Four x) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) acc.v[i] += w.v[4 * i + j] * x[j];
  return acc;
}
static inline I32 dot_nibbles(I32 acc, Bytes w, Four x) { return dot_bytes(acc, w, x); }

static inline void prefetch(const void*) {}

}  // namespace foveal::portable
