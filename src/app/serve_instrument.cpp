#include "app/serve_instrument.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>

#include "app/diff_report.h"
#include "app/evidence.h"
#include "base/cancel.h"
#include "base/error.h"
#include "base/priority.h"
#include "server/fields.h"
#include "trace/evidence_writer.h"
#include "trace/inner.h"
#include "trace/labels.h"

namespace plumb {
namespace {

using server::Hidden;
using server::HiddenOrder;
using server::HiddenPooling;
using server::HiddenRows;
using server::refuse_field;
using server::TraceOrder;

// The threads of the copy are born with the priority of the thread that makes it.
std::unique_ptr<Model> at_low_priority(const Model& served) {
  return std::async(std::launch::async,
                    [&] {
                      lower_priority();
                      return std::make_unique<Model>(served, served.pool().threads());
                    })
      .get();
}

// What a trace says wrongly, with the pointer in the request.
[[noreturn]] void refuse_trace(const Error& e) {
  const bool of_trace = e.code().starts_with("trace.");
  if (!of_trace) throw e;
  throw Error({.code = "request.trace",
               .expected = e.expected(),
               .found = e.found().empty() ? e.code() : e.found(),
               .where = {.key = "/trace" + e.where().key}});
}

// Each record is compared with our rows of its tokens: together no more than there are.
void check_records(const trace::Trace& theirs, const Program& p, int64_t n) {
  std::map<std::string, int64_t> rows;
  for (size_t i = 0; i < theirs.records().size(); ++i) {
    const trace::Record& r = theirs.records()[i];
    if (r.value.empty() && p.find(r.raw) < 0) continue;  // nothing of ours to compare with
    const int64_t all = rows[r.name()] += std::max<int64_t>(1, r.tokens);
    if (all <= (n > 0 ? n : kMaxInstrumentTokens)) continue;
    refuse_field(fmt::format("/trace/records/{}", i),
                 fmt::format("at most as many rows of {} as tokens ({})", printable(r.name()), n),
                 std::to_string(all));
  }
}

bool in_layers(const std::string& name, const std::vector<int>& layers) {
  return !name.starts_with("blk.") || std::any_of(layers.begin(), layers.end(), [&](int layer) {
    return name.starts_with(fmt::format("blk.{}.", layer));
  });
}

[[noreturn]] void refuse_size(const char* pointer, std::string found) {
  throw Error({.code = "request.too_large",
               .expected = fmt::format("at most {} numbers and {} bytes in {} tokens", kMaxInstrumentNodes,
                                       kMaxInstrumentBytes, kMaxInstrumentTokens),
               .found = std::move(found),
               .where = {.key = pointer},
               .remedy = "ask for fewer values or layers, a lower level, or a shorter text"});
}

[[noreturn]] void refuse_work(const char* pointer, int64_t tokens, int64_t bytes) {
  throw Error({.code = "request.too_large",
               .expected = fmt::format("at most {} bytes of values at hand and {} tokens", kMaxInstrumentWork,
                                       kMaxInstrumentTokens),
               .found = fmt::format("{} bytes for {} tokens", bytes, tokens),
               .where = {.key = pointer},
               .remedy = "shorten the text"});
}

}  // namespace

ServeInstrument::ServeInstrument(const Model& served, const RunnerOptions& runner)
    : runner_(runner), model_(at_low_priority(served)) {}

// The fast arithmetic computes what follows the layers for the last token of a call only.
bool ServeInstrument::on_last_row_only(Value v) const {
  const std::vector<Node>& nodes = model_->program().nodes;
  return std::none_of(nodes.begin() + v, nodes.end(),
                      [](const Node& n) { return n.name.starts_with("blk."); });
}

int64_t ServeInstrument::widest() const {
  int64_t size = 0;
  for (const Node& node : model_->program().nodes) size = std::max<int64_t>(size, node.shape.size());
  return size;
}

trace::Matching ServeInstrument::match(const TraceOrder& order, bool fast) const {
  const Program& p = model_->program();
  trace::Matching all;
  const std::vector<std::string> every = {"*"};
  const std::vector<std::string>& patterns = order.values.empty() ? every : order.values;
  for (size_t i = 0; i < patterns.size(); ++i) {
    const std::string pointer = fmt::format("/values/{}", i);
    trace::Matching found;
    try {
      found = trace::matching_values(p, patterns[i]);
    } catch (const Error& e) {
      refuse_field(pointer, e.expected(), e.found());
    }
    if (fast && !found.inner.empty())
      refuse_field(pointer, "arith ref32 or ref64 beside values inside attention", printable(patterns[i]));
    all.values.merge(found.values), all.inner.merge(found.inner), all.attentions.merge(found.attentions);
  }
  if (order.layers) {
    const auto other = [&](const std::string& name) { return !in_layers(name, *order.layers); };
    std::erase_if(all.values, [&](Value v) { return other(p.nodes[size_t(v)].name); });
    std::erase_if(all.attentions, [&](Value v) { return other(p.nodes[size_t(v)].name); });
    std::erase_if(all.inner, other);
  }
  if (all.values.empty() && all.inner.empty())
    refuse_field("/layers", "layers in which the values are", "none of them");
  return all;
}

void ServeInstrument::check_size(const TraceOrder& order, const trace::RunRequest& run,
                                 const trace::Matching& wanted) const {
  const Program& p = model_->program();
  const int64_t n = int64_t(order.tokens.size());
  int64_t numbers = n + order.steps;
  for (Value v : wanted.values) {
    const Shape shape = p.shape(v);
    const int64_t rows = run.options.arith == Arith::fast && on_last_row_only(v) ? 1 : n;
    numbers += trace::EvidenceWriter::nodes(run.level, rows, shape.heads, shape.dim) +
               order.steps * trace::EvidenceWriter::nodes(run.level, 1, shape.heads, shape.dim);
  }
  for (const std::string& name : wanted.inner) {
    const auto inner = trace::inner_value(name);
    const Shape shape = p.shape(p.nodes[size_t(p.find(inner->attention))].in[0]);
    const int64_t most = std::max<int64_t>(shape.dim, n + order.steps);  // keys, or a head's elements
    numbers += trace::EvidenceWriter::nodes(run.level, n, shape.heads, most) +
               order.steps * trace::EvidenceWriter::nodes(run.level, 1, shape.heads, most);
  }
  if (numbers > kMaxInstrumentNodes) {
    refuse_size("/values", fmt::format("{} numbers of {} values in {} tokens", numbers,
                                       wanted.values.size() + wanted.inner.size(), n + order.steps));
  }
  const int64_t work = run.options.arith == Arith::fast ? 0 : 2 * 8 * n * widest();
  if (work > kMaxInstrumentWork) refuse_work("/arith", n, work);
}

server::Instrument::Work<std::string> ServeInstrument::trace(const TraceOrder& order) {
  const bool fast = order.arith == "fast";
  if (fast && runner_.backend != Backend::cpu)
    refuse_field("/arith", "ref32 or ref64: CUDA shows no values", "fast");
  const trace::Matching wanted = match(order, fast);
  trace::RunRequest run{.tokens = order.tokens, .steps = order.steps, .options = runner_};
  run.level = order.level == "full"     ? trace::Level::full
              : order.level == "sketch" ? trace::Level::sketch
                                        : trace::Level::stats;
  for (Value v : wanted.values) run.only += model_->program().nodes[size_t(v)].name + ",";
  for (const std::string& name : wanted.inner) run.only += name + ",";
  run.only.pop_back();
  run.options.arith = fast ? Arith::fast : order.arith == "ref32" ? Arith::ref32 : Arith::ref64;
  run.arithmetic = order.arith;
  run.engine = own_engine(*model_, order.arith);
  check_size(order, run, wanted);
  return [this, run](std::atomic<bool>& gone) {
    trace::RunRequest mine = run;
    mine.options.cancel = &gone;
    trace::EvidenceWriter writer(kMaxInstrumentBytes, kMaxInstrumentNodes);
    try {
      trace::record_run(*model_, mine, writer);
    } catch (const Error& e) {
      if (e.code() == "trace.too_large") refuse_size("/values", e.found());
      // What led to a number that is not finite is what the trace was taken for.
      if (e.code() != "numeric.nonfinite" || !writer.finished()) throw;
    }
    return writer.take();
  };
}

void ServeInstrument::check_compare(const trace::Trace& theirs) const {
  const std::vector<int>& ids = theirs.header().tokens;
  const Program& p = model_->program();
  const int64_t n = int64_t(ids.size());
  if (n > std::min<int64_t>(kMaxInstrumentTokens, p.n_ctx_train))
    refuse_field("/trace/input/tokens",
                 fmt::format("at most {} tokens", std::min<int64_t>(kMaxInstrumentTokens, p.n_ctx_train)),
                 std::to_string(n));
  for (int id : ids) {
    if (id < 0 || id >= model_->n_vocab())
      refuse_field("/trace/input/tokens", fmt::format("ids from 0 to {}", model_->n_vocab() - 1),
                   std::to_string(id));
  }
  check_records(theirs, p, n);
  int64_t size = 16 * widest();  // ours is a file of f32, made by a run in f64
  for (const Node& node : p.nodes) size += 4 * node.shape.size();
  if (n * size > kMaxInstrumentWork) refuse_work("/trace/input/tokens", n, n * size);
}

server::Instrument::Work<std::string> ServeInstrument::compare(const Json& json) {
  std::shared_ptr<trace::Trace> theirs;
  try {
    theirs = std::make_shared<trace::Trace>(trace::Trace::of(json, "trace"));
    trace::settle_labels(theirs->unnamed_records(), model_->program().arch);
  } catch (const Error& e) {
    refuse_trace(e);
  }
  check_compare(*theirs);
  return [this, theirs](std::atomic<bool>& gone) {
    try {
      const trace::Diff d = trace::diff({.theirs = *theirs, .model = model_.get(), .cancel = &gone});
      return dump(diff_json(d, model_.get()), {.indent = 1, .ascii = true}) + "\n";
    } catch (const Error& e) {
      refuse_trace(e);
    }
  };
}

namespace {

// Rows as they come, pooled if asked for.
class Pooled {
 public:
  Pooled(std::string value, int64_t size, HiddenPooling pooling)
      : out_{std::move(value), size, {}}, pooling_(pooling), sum_(size_t(size)) {}

  template <class T>
  void add(const T* row) {
    ++rows_;
    if (pooling_ == HiddenPooling::mean) {
      for (size_t i = 0; i < sum_.size(); ++i) sum_[i] += double(row[i]);
      return;
    }
    if (pooling_ == HiddenPooling::last) out_.numbers.clear();
    for (int64_t i = 0; i < out_.size; ++i) out_.numbers.push_back(float(row[i]));
  }

  HiddenRows rows() {
    if (pooling_ == HiddenPooling::mean) {
      for (double x : sum_) out_.numbers.push_back(float(x / double(rows_)));
    }
    return std::move(out_);
  }

 private:
  HiddenRows out_;
  HiddenPooling pooling_;
  int64_t rows_ = 0;
  std::vector<double> sum_;
};

constexpr const char* kGone = "a client that is gone";

}  // namespace

// One run shows what all tokens pass through; what is computed of the last token only takes a run of its own
// where the others' rows are wanted.
std::vector<HiddenRows> ServeInstrument::hidden_of(const std::vector<int>& ids,
                                                   const std::vector<Value>& values, HiddenPooling pooling,
                                                   std::atomic<bool>& gone) const {
  const Program& p = model_->program();
  std::map<Value, Pooled> found;
  RunnerOptions options = runner_;
  options.draft = 0, options.cancel = &gone;
  for (Value v : values) {
    found.emplace(v, Pooled(p.nodes[size_t(v)].name, p.shape(v).size(), pooling));
    if (pooling == HiddenPooling::last || !on_last_row_only(v)) options.taps.insert(v);
  }
  for (auto& [v, pooled] : found) {
    if (options.taps.count(v)) continue;
    RunnerOptions alone = runner_;
    alone.draft = 0, alone.cancel = &gone;
    Runner::make(*model_, alone)->observe(ids, v, true, [&](int64_t, std::span<const double> row) {
      pooled.add(row.data());
    });
  }
  if (!options.taps.empty()) {
    options.see = [&](const SeenRows& s) {
      stop_if(&gone, kGone);
      std::visit(
          [&](const auto* x) {
            for (int row = 0; row < s.rows; ++row) found.at(s.value).add(x + row * s.stride);
          },
          s.at);
    };
    Runner::make(*model_, options)->decode(ids);
  }
  std::vector<HiddenRows> out;
  for (Value v : values) out.push_back(found.at(v).rows());
  return out;
}

server::Instrument::Work<Hidden> ServeInstrument::hidden(HiddenOrder order) {
  if (runner_.backend != Backend::cpu) {
    throw Error({.code = "server.not_supported",
                 .expected = "a server with --backend cpu",
                 .found = "cuda, which shows no values"});
  }
  const Program& p = model_->program();
  std::vector<Value> values;
  int64_t size = 0;
  for (const std::string& name : order.values) {
    const std::string pointer = fmt::format("/values/{}", values.size());
    const Value v = p.find(name);
    if (v < 0) refuse_field(pointer, "the name of a value of the model ('plumb show FILE')", printable(name));
    if (std::count(values.begin(), values.end(), v)) refuse_field(pointer, "each name once", printable(name));
    values.push_back(v), size += p.shape(v).size();
  }
  int64_t rows = 0;
  for (const std::vector<int>& ids : order.texts)
    rows += order.pooling == HiddenPooling::none ? int64_t(ids.size()) : 1;
  if (rows * size > kMaxInstrumentNodes)
    refuse_size("/values", fmt::format("{} rows of {} numbers", rows, size));
  return [this, order = std::move(order), values](std::atomic<bool>& gone) {
    Hidden out;
    for (const std::vector<int>& ids : order.texts) {
      stop_if(&gone, kGone);
      out.push_back(hidden_of(ids, values, order.pooling, gone));
    }
    return out;
  };
}

}  // namespace plumb
