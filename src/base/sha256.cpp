#include "base/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace plumb {
namespace {

// The first 32 bits of the fractions of the cube roots of the first 64 primes.
constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0xfc19dc6,  0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x6ca6351,  0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

}  // namespace

void Sha256Sum::block(const uint8_t* p) {
  uint32_t w[64];
  for (int i = 0; i < 16; ++i, p += 4)
    w[i] = uint32_t(p[0]) << 24 | uint32_t(p[1]) << 16 | uint32_t(p[2]) << 8 | uint32_t(p[3]);
  for (int i = 16; i < 64; ++i) {
    const uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) + w[i - 7] +
           (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
  }
  uint32_t v[8];
  std::memcpy(v, h_, sizeof v);
  for (int i = 0; i < 64; ++i) {
    const uint32_t a = v[0], e = v[4];
    const uint32_t t1 = v[7] + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                        ((e & v[5]) ^ (~e & v[6])) + kRound[i] + w[i];
    const uint32_t t2 =
        (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
    std::memmove(v + 1, v, 7 * sizeof v[0]);
    v[4] += t1, v[0] = t1 + t2;
  }
  for (int i = 0; i < 8; ++i) h_[i] += v[i];
}

void Sha256Sum::add(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t held = bytes_ % 64, n = std::min(bytes.size(), 64 - held);
    if (held == 0 && n == 64) {
      block(reinterpret_cast<const uint8_t*>(bytes.data()));
    } else {
      std::memcpy(rest_ + held, bytes.data(), n);
      if (held + n == 64) block(rest_);
    }
    bytes_ += n, bytes.remove_prefix(n);
  }
}

Sha256 Sha256Sum::digest() const {
  Sha256Sum padded = *this;
  const uint64_t bits = bytes_ * 8;
  std::string end(1, char(0x80));
  end.resize((119 - bytes_ % 64) % 64 + 1);  // then 8 bytes are left of a block
  for (int i = 7; i >= 0; --i) end += char(bits >> (8 * i));
  padded.add(end);
  Sha256 out;
  for (size_t i = 0; i < 32; ++i) out[i] = uint8_t(padded.h_[i / 4] >> (24 - 8 * (i % 4)));
  return out;
}

Sha256 sha256(std::string_view bytes) {
  Sha256Sum sum;
  sum.add(bytes);
  return sum.digest();
}

std::string hex(const Sha256& digest) {
  std::string out;
  for (uint8_t b : digest) out += "0123456789abcdef"[b >> 4], out += "0123456789abcdef"[b & 15];
  return out;
}

}  // namespace plumb
