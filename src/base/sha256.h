// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace plumb {

using Sha256 = std::array<uint8_t, 32>;

Sha256 sha256(std::string_view bytes);

/// Of bytes that come in pieces.
class Sha256Sum {
 public:
  void add(std::string_view bytes);
  Sha256 digest() const;  // of all so far

 private:
  void block(const uint8_t* p);

  // The first 32 bits of the fractions of the square roots of the first 8 primes.
  uint32_t h_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint64_t bytes_ = 0;
  uint8_t rest_[64] = {};  // bytes_ % 64 of them
};

/// In 64 digits.
std::string hex(const Sha256& digest);

}  // namespace plumb
