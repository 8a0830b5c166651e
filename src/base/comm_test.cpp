#include "base/comm.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace plumb {
namespace {

void on_ranks(int size, const std::function<void(Comm&)>& work) {
  const ThreadComms comms(size);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) threads.emplace_back([&, r] { work(comms.of(r)); });
  for (std::thread& t : threads) t.join();
}

TEST(Comm, EveryRankReceivesTheRowsOfAllSideBySide) {
  const std::vector<int> sizes = {3, 0, 2};
  for (int rows : {1, 4}) {
    on_ranks(3, [&](Comm& comm) {
      constexpr int64_t kStride = 4, kOutStride = 7;
      const int own = sizes[size_t(comm.rank())];
      for (int round = 0; round < 3; ++round) {
        std::vector<float> mine(size_t(rows * kStride), -1), out(size_t(rows * kOutStride), -1);
        const auto value = [&](int rank, int t, int i) {
          return float(1000 * round + 100 * rank + 10 * t + i);
        };
        for (int t = 0; t < rows; ++t) {
          for (int i = 0; i < own; ++i) mine[size_t(t * kStride + i)] = value(comm.rank(), t, i);
        }
        all_gather_rows(comm, mine.data(), kStride, rows, sizes, out.data(), kOutStride);
        for (int t = 0; t < rows; ++t) {
          const float* row = out.data() + t * kOutStride;
          for (int i = 0; i < 3; ++i) EXPECT_EQ(row[i], value(0, t, i));
          for (int i = 0; i < 2; ++i) EXPECT_EQ(row[3 + i], value(2, t, i));
          EXPECT_EQ(row[5], -1);  // nobody's
        }
      }
    });
  }
}

TEST(Comm, EveryRankReceivesWhatRank0Gives) {
  on_ranks(4, [](Comm& comm) {
    for (int round = 0; round < 3; ++round) {
      int data[2] = {comm.rank() == 0 ? 7 + round : -1, comm.rank()};
      comm.broadcast(data, sizeof(data));
      EXPECT_EQ(data[0], 7 + round);
      EXPECT_EQ(data[1], 0);
    }
  });
}

}  // namespace
}  // namespace plumb
