// What `plumb trace` and `plumb diff` do, for the clients of `plumb serve`.
#pragma once

#include "engine/model.h"
#include "engine/runner.h"
#include "server/instrument.h"
#include "trace/recorder.h"

namespace plumb {

class ServeInstrument : public server::Instrument {
 public:
  /// Measures with threads of its own, of low priority, and where nothing else is asked for with the
  /// arithmetic of `runner`, which is the server's. Shares the weights of the CPU, if those are what it
  /// serves with; `served` must be ready.
  ServeInstrument(const Model& served, const RunnerOptions& runner);

  Work<std::string> trace(const server::TraceOrder& order) override;
  Work<std::string> compare(const Json& trace) override;
  Work<server::Hidden> hidden(server::HiddenOrder order) override;

 private:
  trace::Matching match(const server::TraceOrder& order, bool fast) const;
  void check_size(const server::TraceOrder& order, const trace::RunRequest& run,
                  const trace::Matching& wanted) const;
  void check_compare(const trace::Trace& theirs) const;
  bool on_last_row_only(Value v) const;
  int64_t widest() const;
  std::vector<server::HiddenRows> hidden_of(const std::vector<int>& ids, const std::vector<Value>& values,
                                            server::HiddenPooling pooling, std::atomic<bool>& gone) const;

  const RunnerOptions runner_;
  const std::unique_ptr<Model> model_;
};

}  // namespace plumb
