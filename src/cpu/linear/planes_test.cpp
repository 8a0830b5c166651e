// Q8_0 in two planes: the bits of its plain form, and the bound that screening rests on (packed_planes.h).
#include "cpu/linear/matrix_test.h"

namespace plumb {
namespace {

using testing::Matrix;
using testing::multiply;
using testing::Random;
using testing::Tokens;

TEST(LinearKernels, TakeQ8_0InPlanesWithTheBitsOfItsPlainForm) {
  Random r(21);
  for (int columns : {32, 64, 576, 640}) {
    for (Rounding rounding : {Rounding::int8, Rounding::refined, Rounding::int16}) {
      const uint64_t seed = r();
      Random same(seed), again(seed);
      const Matrix plain(Format::Q8_0, 70, columns, same),
          planes(Format::Q8_0, 70, columns, again, Packing::planes);
      ASSERT_EQ(plain.bytes, planes.bytes);
      const Tokens x(7, columns, rounding, r);
      for (Isa isa : testing::isas()) {
        for (int n : {1, 2, 3, 7}) {
          const std::vector<float> a = multiply(isa, plain, x, 0, n), b = multiply(isa, planes, x, 0, n);
          EXPECT_EQ(testing::first_difference(a.data(), b.data(), int64_t(a.size())), -1)
              << name(isa) << " " << columns << " columns, " << n << " tokens";
        }
      }
    }
  }
}

// The norm of a token's row as the matrix multiplies it.
double norm_of(const testing::CodedRow& row) {
  double sum = 0;
  for (size_t k = 0; k < row.codes.size(); ++k)
    sum += std::pow(double(row.codes[k]) * double(row.scales[k / 32]), 2);
  return std::sqrt(sum);
}

TEST(LinearKernels, OfTheHighPlaneAreWithinTheRowsBoundOfTheirProducts) {
  Random r(22);
  double closest = 1e9;  // of bound to difference
  for (int columns : {32, 64, 576, 640, 2048}) {
    for (Rounding rounding : {Rounding::int8, Rounding::int16}) {
      const Matrix m(Format::Q8_0, 200, columns, r, Packing::planes);
      const Tokens x(1, columns, rounding, r);
      const double norm = norm_of(x.rows[0]) * (1 + 0x1p-20);
      for (Isa isa : testing::isas()) {
        const std::vector<float> exact = multiply(isa, m, x, 0, 1),
                                 high = multiply(isa, m, x, 0, 1, Packing::high);
        for (int i = 0; i < m.rows; ++i) {
          float bound;
          const uint8_t* group = m.packed.data() + i / 16 * m.group_bytes;
          std::memcpy(&bound, group + packed_bounds_at(columns) + i % 16 * 4, 4);
          const double difference = std::fabs(double(exact[size_t(i)]) - double(high[size_t(i)]));
          EXPECT_LE(difference, double(bound) * norm) << name(isa) << " row " << i << " of " << columns;
          if (difference > 0) closest = std::min(closest, double(bound) * norm / difference);
        }
      }
    }
  }
  EXPECT_LT(closest, 3);  // the bound is no wider than it must be
}

}  // namespace
}  // namespace plumb
