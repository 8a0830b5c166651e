// The probe's figures mean something: the loops read what they claim to read and multiply as often as they
// say.
#include "cpu/probe.h"

#include <gtest/gtest.h>

#include <cstring>

namespace plumb {
namespace {

TEST(Probe, EveryPatternReadsEveryByteOfItsShare) {
  Buffer memory(1 << 16);
  for (Isa isa : all_isas()) {
    if (!supported(isa)) continue;
    const ProbeKernels& k = probe_kernels(isa);
    for (int i = 0; i < k.n_patterns; ++i) {
      for (int64_t at : {0, 63, 4096, 8191, 32767, 40001, 65535}) {
        std::memset(memory.data(), 0, size_t(memory.bytes()));
        EXPECT_EQ(k.patterns[i].read(memory.data(), memory.bytes()), 0u) << k.patterns[i].name;
        memory.data()[at] = 1;
        EXPECT_NE(k.patterns[i].read(memory.data(), memory.bytes()), 0u)
            << name(isa) << " " << k.patterns[i].name << " byte " << at;
      }
    }
  }
}

TEST(Probe, MultipliersDoAtLeastWhatIsAskedAndHardlyMore) {
  for (Isa isa : all_isas()) {
    if (!supported(isa)) continue;
    const ProbeKernels& k = probe_kernels(isa);
    for (auto macs : {k.int8_macs, k.f32_macs}) {
      EXPECT_GE(macs(100000), 100000) << name(isa);
      EXPECT_LE(macs(100000), 105000) << name(isa);
    }
  }
}

TEST(Probe, LimitsAreTheBestOfAllRounds) {
  Pool pool(2);
  MachineProbe probe(best_isa(), pool, 8 << 20);
  probe.measure(1);
  const double read = probe.read_rate(), int8 = probe.int8_rate();
  EXPECT_GT(read, 0);
  EXPECT_GT(probe.f32_rate(), 0);
  const MachineProbe::Now now = probe.measure_again();
  EXPECT_EQ(probe.read_rate(), std::max(read, now.read));
  EXPECT_EQ(probe.int8_rate(), std::max(int8, now.int8));
}

}  // namespace
}  // namespace plumb
