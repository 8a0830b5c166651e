#include "base/comm.h"

#include <algorithm>

namespace plumb {

class ThreadComms::Member : public Comm {
 public:
  Member(ThreadComms& all, int rank) : all_(all), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return int(all_.given_.size()); }

  void all_gather(const void* mine, void* all, std::span<const int64_t> bytes) override {
    all_.given_[size_t(rank_)] = mine;
    all_.barrier_.arrive_and_wait();
    auto* to = static_cast<uint8_t*>(all);
    for (size_t r = 0; r < bytes.size(); ++r)
      to = std::copy_n(static_cast<const uint8_t*>(all_.given_[r]), bytes[r], to);
    all_.barrier_.arrive_and_wait();  // until then what was given must stand
  }

  void broadcast(void* data, int64_t bytes) override {
    if (rank_ == 0) all_.given_[0] = data;
    all_.barrier_.arrive_and_wait();
    if (rank_ > 0)
      std::copy_n(static_cast<const uint8_t*>(all_.given_[0]), bytes, static_cast<uint8_t*>(data));
    all_.barrier_.arrive_and_wait();
  }

 private:
  ThreadComms& all_;
  const int rank_;
};

ThreadComms::ThreadComms(int size) : barrier_(size), given_(size_t(size)) {
  for (int r = 0; r < size; ++r) members_.push_back(std::make_unique<Member>(*this, r));
}

ThreadComms::~ThreadComms() = default;

Comm& ThreadComms::of(int rank) const { return *members_[size_t(rank)]; }

}  // namespace plumb
