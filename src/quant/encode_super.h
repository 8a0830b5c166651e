// Encoders of the blocks of 256 whose groups have integer scales: Q3_K, Q6_K, IQ4_XS (scale only) and Q2_K,
// Q4_K, Q5_K (scale and minimum).
//
// First each group's own best real scale; then the block's scale, and in turns the best integer of each group
// near the ideal one and the best block scale for these integers (least squares); the best turn is kept.
// Internal to this room.
#pragma once

#include "quant/encode_simple.h"

namespace plumb::encoding {

/// A block of 256 in groups of kGroup weights: level * (d * scale[g]).
template <int kGroup>
struct ScaledBlock {
  static constexpr int kGroups = 256 / kGroup;
  float d = 0;
  int scale[kGroups] = {};
  float level[256];

  template <class Levels>
  void fit(const float* x, const Levels& levels, int lowest, float from, float to, float step) {
    float ideal[kGroups], best = -1, trial = 0;
    int at[kGroups];
    for (int g = 0; g < kGroups; ++g) ideal[g] = best_scale(x + g * kGroup, kGroup, levels, from, to, step);
    trial = through_half(extreme(ideal, kGroups) / float(lowest));
    for (int g = 0; g < kGroups; ++g) at[g] = whole(ideal[g] * inverse(trial), lowest);
    for (int turn = 0; turn < 3; ++turn) {
      float gain = 0, numerator = 0, denominator = 0;
      for (int g = 0; g < kGroups; ++g) {
        const Sums s = best_near(x + g * kGroup, levels, trial, lowest, at[g]);
        const float c = float(at[g]);
        gain += s.gain(trial * c), numerator += c * s.xv, denominator += c * c * s.vv;
      }
      if (gain > best) best = gain, d = trial, std::copy_n(at, kGroups, scale);
      if (!(denominator > 0)) break;
      trial = through_half(numerator / denominator);
    }
    for (int g = 0; g < kGroups; ++g) {
      const F4 id = all(inverse(d * float(scale[g])));
      for (int i = g * kGroup; i < (g + 1) * kGroup; i += 4) store(level + i, levels(load(x + i) * id));
    }
  }

 private:
  static int whole(float v, int lowest) {
    return std::clamp(int(std::lrint(std::clamp(v, -1e4f, 1e4f))), lowest, -lowest - 1);
  }

  template <class Levels>
  static Sums best_near(const float* x, const Levels& levels, float d, int lowest, int& at) {
    Sums best;
    float most = -INFINITY;
    const int middle = at;
    for (int c : {middle, middle - 1, middle + 1}) {
      if (c < lowest || c >= -lowest) continue;
      const float scale = d * float(c);
      const Sums s = sums(x, kGroup, inverse(scale), levels);
      if (const float gain = s.gain(scale); gain > most) most = gain, best = s, at = c;
    }
    return best;
  }
};

inline void encode(const float* x, BlockQ6_K& b) {
  ScaledBlock<16> s;
  s.fit(x, Uniform{-32, 31}, -128, -33.0f, -30.6f, 0.2f);
  b = {};
  b.d = to_half(s.d);
  for (int g = 0; g < 16; ++g) b.scales[g] = int8_t(s.scale[g]);
  for (int i = 0; i < 256; ++i) {
    const int q = int(s.level[i]) + 32;
    uint8_t& low = b.ql[i / 128 * 64 + i % 64];
    uint8_t& high = b.qh[i / 128 * 32 + i % 32];
    low = uint8_t(low | (q & 15) << i / 64 % 2 * 4);
    high = uint8_t(high | (q >> 4) << i / 32 % 4 * 2);
  }
}

inline void encode(const float* x, BlockQ3_K& b) {
  ScaledBlock<16> s;
  s.fit(x, Uniform{-4, 3}, -32, -5.4f, -2.6f, 0.2f);
  b = {};
  b.d = to_half(s.d);
  for (int g = 0; g < 16; ++g) {
    const int c = s.scale[g] + 32;
    b.scales[g % 8] = uint8_t(b.scales[g % 8] | (c & 15) << g / 8 * 4);
    b.scales[8 + g % 4] = uint8_t(b.scales[8 + g % 4] | (c >> 4) << g / 4 * 2);
  }
  for (int i = 0; i < 256; ++i) {
    const int q = int(s.level[i]) + 4;
    uint8_t& low = b.qs[i / 128 * 32 + i % 32];
    low = uint8_t(low | (q & 3) << i / 32 % 4 * 2);
    b.hmask[i % 32] = uint8_t(b.hmask[i % 32] | (q >> 2) << i / 32);
  }
}

inline void encode(const float* x, BlockIQ4_XS& b) {
  ScaledBlock<32> s;
  s.fit(x, kIq4Levels, -32, -148, -100, 4);
  b = {};
  b.d = to_half(s.d);
  for (int j = 0; j < 8; ++j) {
    const int c = s.scale[j] + 32;
    b.scales_l[j / 2] = uint8_t(b.scales_l[j / 2] | (c & 15) << j % 2 * 4);
    b.scales_h = uint16_t(b.scales_h | (c >> 4) << 2 * j);
    for (int i = 0; i < 16; ++i)
      b.qs[16 * j + i] = nibbles(iq4_code(s.level[32 * j + i]), iq4_code(s.level[32 * j + i + 16]));
  }
}

/// A block of 256 in groups of kGroup weights: code * (d * scale[g]) - dmin * min[g].
template <int kGroup>
struct AffineBlock {
  static constexpr int kGroups = 256 / kGroup;
  float d = 0, dmin = 0;
  int scale[kGroups] = {}, min[kGroups] = {};
  uint8_t code[256];

  /// Codes 0 .. top, integers 0 .. most.
  void fit(const float* x, float top, int most, float from, float to, float step) {
    float ideal[kGroups], least[kGroups], best = INFINITY;
    for (int g = 0; g < kGroups; ++g) {
      const Affine a = best_affine(x + g * kGroup, kGroup, top, true, from, to, step);
      ideal[g] = a.d, least[g] = -a.m;
    }
    AffineBlock t;
    t.d = through_half(*std::max_element(ideal, ideal + kGroups) / float(most));
    t.dmin = through_half(*std::max_element(least, least + kGroups) / float(most));
    for (int g = 0; g < kGroups; ++g) {
      t.scale[g] = whole(ideal[g] * inverse(t.d), most), t.min[g] = whole(least[g] * inverse(t.dmin), most);
    }
    for (int turn = 0; turn < 3; ++turn) {
      Normal n;
      const float error = t.improve(x, top, most, n);
      if (error < best) {
        best = error, d = t.d, dmin = t.dmin;
        std::copy_n(t.scale, kGroups, scale), std::copy_n(t.min, kGroups, min);
      }
      t.solve(n);
    }
    set_codes(x, top);
  }

 private:
  // The normal equations of d and dmin: with u = scale q and m = min, x = d u - dmin m.
  struct Normal {
    float uu = 0, um = 0, mm = 0, xu = 0, xm = 0;
  };

  static int whole(float v, int most) { return std::clamp(int(std::lrint(std::min(v, 1e4f))), 0, most); }

  void solve(const Normal& n) {
    const float determinant = n.uu * n.mm - n.um * n.um;
    if (determinant > 1e-6f * n.uu * n.mm) {
      const float a = (n.xu * n.mm - n.xm * n.um) / determinant,
                  b = (n.xu * n.um - n.xm * n.uu) / determinant;
      if (a > 0 && b >= 0) d = through_half(a), dmin = through_half(b);
    } else if (n.uu > 0 && n.mm == 0 && n.xu > 0) {
      d = through_half(n.xu / n.uu);
    }
  }

  /// The best integers near the present ones, group by group; returns the block's error.
  float improve(const float* x, float top, int most, Normal& n) {
    float sum = 0;
    for (int g = 0; g < kGroups; ++g) {
      const int at = scale[g], low = min[g];
      float least = INFINITY;
      AffineSums chosen;
      const auto attempt = [&](int c, int m) {
        if (c < 0 || c > most || m < 0 || m > most) return;
        const float s = d * float(c), offset = -dmin * float(m);
        const AffineSums a = affine_sums(x + g * kGroup, kGroup, inverse(s), offset, top);
        if (const float e = a.error(s, offset, kGroup); e < least)
          least = e, chosen = a, scale[g] = c, min[g] = m;
      };
      for (int dc : {0, -1, 1}) {
        for (int dm : {0, -1, 1}) attempt(at + dc, low + dm);
      }
      const float c = float(scale[g]), m = float(min[g]);
      n.uu += c * c * chosen.qq, n.um += c * m * chosen.q, n.mm += m * m * float(kGroup);
      n.xu += c * chosen.xq, n.xm += m * chosen.x;
      sum += least;
    }
    return sum;
  }

  void set_codes(const float* x, float top) {
    float v[4];
    for (int i = 0; i < 256; i += 4) {
      const float id = inverse(d * float(scale[i / kGroup])), offset = -dmin * float(min[i / kGroup]);
      store(v, nearest(clamp((load(x + i) - all(offset)) * all(id), all(0), all(top))));
      for (int k = 0; k < 4; ++k) code[i + k] = uint8_t(v[k]);
    }
  }
};

/// Packs 8 scales and 8 minima of 6 bits as scale_min_k4 reads them.
inline void pack_k4(const int* scale, const int* min, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    out[j] = uint8_t(scale[j] | scale[j + 4] >> 4 << 6);
    out[j + 4] = uint8_t(min[j] | min[j + 4] >> 4 << 6);
    out[j + 8] = nibbles(scale[j + 4] & 15, min[j + 4] & 15);
  }
}

inline void encode(const float* x, BlockQ4_K& b) {
  AffineBlock<32> a;
  a.fit(x, 15, 63, -1.6f, 1.6f, 0.2f);
  b = {};
  b.d = to_half(a.d), b.dmin = to_half(a.dmin);
  pack_k4(a.scale, a.min, b.scales);
  for (int i = 0; i < 256; ++i) {
    uint8_t& low = b.qs[i / 64 * 32 + i % 32];
    low = uint8_t(low | a.code[i] << i / 32 % 2 * 4);
  }
}

inline void encode(const float* x, BlockQ5_K& b) {
  AffineBlock<32> a;
  a.fit(x, 31, 63, -1.6f, 1.6f, 0.2f);
  b = {};
  b.d = to_half(a.d), b.dmin = to_half(a.dmin);
  pack_k4(a.scale, a.min, b.scales);
  for (int i = 0; i < 256; ++i) {
    uint8_t& low = b.qs[i / 64 * 32 + i % 32];
    low = uint8_t(low | (a.code[i] & 15) << i / 32 % 2 * 4);
    b.qh[i % 32] = uint8_t(b.qh[i % 32] | (a.code[i] >> 4) << i / 32);
  }
}

inline void encode(const float* x, BlockQ2_K& b) {
  AffineBlock<16> a;
  a.fit(x, 3, 15, -0.8f, 1.4f, 0.1f);
  b = {};
  b.d = to_half(a.d), b.dmin = to_half(a.dmin);
  for (int g = 0; g < 16; ++g) b.scales[g] = nibbles(a.scale[g], a.min[g]);
  for (int i = 0; i < 256; ++i) {
    uint8_t& low = b.qs[i / 128 * 32 + i % 32];
    low = uint8_t(low | a.code[i] << i / 32 % 4 * 2);
  }
}

}  // namespace plumb::encoding
