#include "trace/recorder.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/cancel.h"
#include "base/error.h"
#include "trace/inner.h"

namespace plumb::trace {
namespace {

// Turns what taps show into records.
class Sink {
 public:
  Sink(const Program& p, RecordSink& writer, Level level) : p_(p), writer_(writer), level_(level) {}

  void begin_call() { ++step_; }

  void see(const SeenRows& s) {
    const Node& node = p_.nodes[size_t(s.value)];
    Record r;
    r.value = node.name, r.op = plumb::name(node.op), r.dim = node.shape.dim;
    r.heads = node.shape.heads > 1 ? node.shape.heads : 0;
    write(r, s);
  }

  void see(const SeenInner& s) {
    Record r;
    r.value = inner_name(p_.nodes[size_t(s.attention)].name, s.part), r.op = "attention";
    r.heads = s.heads, r.dim = s.dim;
    write(r, {s.attention, s.position, s.rows, s.heads * s.dim, s.at});
  }

 private:
  // A record of more than a shard is split by rows.
  void write(const Record& like, const SeenRows& s) {
    const int64_t most = std::max<int64_t>(1, Writer::kShardBytes / (4 * like.row_size()));
    for (int64_t from = 0; from < s.rows; from += most) {
      Record r = like;
      r.step = step_, r.first = s.position + from, r.tokens = std::min<int64_t>(most, s.rows - from);
      r.type = std::holds_alternative<const double*>(s.at) ? "F64" : "F32";
      std::visit([&](const auto* x) { add(std::move(r), x + from * s.stride, s.stride); }, s.at);
    }
  }

  template <class T>
  void add(Record r, const T* x, int64_t stride) {
    const int64_t size = r.row_size();
    if (level_ == Level::full) {
      if constexpr (std::is_same_v<T, float>) {
        if (stride == size) return writer_.add(r, {x, size_t(r.tokens * size)});
      }
      narrow_.clear();
      for (int64_t t = 0; t < r.tokens; ++t, x += stride) narrow_.insert(narrow_.end(), x, x + size);
      return writer_.add(std::move(r), narrow_);
    }
    wide_.clear();
    for (int64_t t = 0; t < r.tokens; ++t, x += stride) wide_.insert(wide_.end(), x, x + size);
    measure(wide_, level_ == Level::sketch, r);
    writer_.add(std::move(r), {});
  }

  const Program& p_;
  RecordSink& writer_;
  Level level_;
  int step_ = -1;
  std::vector<float> narrow_;
  std::vector<double> wide_;
};

const char* level_name(Level level) {
  static constexpr const char* kNames[] = {"stats", "sketch", "full"};
  return kNames[int(level)];
}

Json ids(const std::vector<int>& values) { return Json::Array(values.begin(), values.end()); }

Json header(const Model& model, const RunRequest& request, const std::vector<int>& tokens,
            const std::vector<int>& calls) {
  Json h, m, input, arithmetic;
  h.set("plumb_trace", 1);
  h.set("engine", request.engine);
  const std::string& file = model.file().path();
  m.set("file", std::filesystem::path(file).filename().string());
  m.set("bytes", model.file().file_bytes());
  m.set("arch", model.program().arch);
  h.set("model", std::move(m));
  input.set("tokens", ids(tokens)), input.set("prompt", int64_t(request.tokens.size()));
  input.set("calls", ids(calls));
  h.set("input", std::move(input));
  arithmetic.set("name", request.arithmetic);
  const bool fast = request.options.arith == Arith::fast;
  arithmetic.set("weights", fast ? "quantised" : "decoded");
  arithmetic.set("accumulator", request.options.arith == Arith::ref64 ? "f64" : "f32");
  h.set("arithmetic", std::move(arithmetic));
  h.set("level", level_name(request.level));
  return h;
}

int largest(std::span<const float> logits) {
  return int(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  path_ = (std::filesystem::temp_directory_path() / "plumb_XXXXXX").string();
  if (!::mkdtemp(path_.data()))
    throw Error({.code = "file.write", .expected = "a temporary folder", .where = {.file = path_}});
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

bool matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++, resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1, n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Matching matching_values(const Program& program, const std::string& patterns) {
  Matching found;
  for (size_t begin = 0; begin <= patterns.size();) {
    const size_t comma = std::min(patterns.find(',', begin), patterns.size());
    const std::string pattern = comma == 0 && patterns.empty() ? "*" : patterns.substr(begin, comma - begin);
    bool any = false;
    for (Value v = 0; v <= program.output; ++v) {
      const Node& node = program.nodes[size_t(v)];
      if (matches(pattern, node.name)) found.values.insert(v), any = true;
      if (!std::holds_alternative<Attention>(node.op) || pattern.find(".attn.") == pattern.npos) continue;
      for (Inner part : {Inner::kq, Inner::probs, Inner::kqv}) {
        if (!matches(pattern, inner_name(node.name, part))) continue;
        found.attentions.insert(v), found.inner.insert(inner_name(node.name, part)), any = true;
      }
    }
    if (!any) {
      throw Error({.code = "usage.value",
                   .expected = "a pattern that matches a value of the model, such as 'blk.0.*' or logits",
                   .found = printable(pattern),
                   .where = {.key = "--only"},
                   .remedy = "'plumb show FILE' lists them"});
    }
    begin = comma + 1;
  }
  return found;
}

void record_run(const Model& model, const RunRequest& request) {
  Writer writer(request.path, request.durable);
  record_run(model, request, writer);
}

void record_run(const Model& model, const RunRequest& request, RecordSink& writer) {
  Sink sink(model.program(), writer, request.level);
  RunnerOptions options = request.options;
  const Matching wanted = matching_values(model.program(), request.only);
  if (!wanted.attentions.empty() && options.arith != Arith::ref32 && options.arith != Arith::ref64) {
    throw Error({.code = "usage.value",
                 .expected = "--arith ref64 or ref32, which show values inside attention",
                 .found = printable(*wanted.inner.begin()) + " of the fast arithmetic",
                 .where = {.key = "--only"}});
  }
  options.taps = wanted.values, options.inner_taps = wanted.attentions;
  options.see = [&](const SeenRows& s) {
    // A call of the references takes long: between two values it can be left.
    stop_if(options.cancel);
    sink.see(s);
  };
  options.see_inner = [&](const SeenInner& s) {
    if (wanted.inner.count(inner_name(model.program().nodes[size_t(s.attention)].name, s.part))) sink.see(s);
  };
  std::vector<int> tokens = request.tokens, calls = {int(tokens.size())};
  const auto runner = Runner::make(model, options);
  try {
    sink.begin_call();
    std::span<const float> logits = runner->decode(tokens);
    for (int step = 0; step < request.steps; ++step) {
      const int id = largest(logits);
      tokens.push_back(id), calls.push_back(1);
      sink.begin_call();
      logits = runner->decode({&id, 1});
    }
  } catch (const Error& e) {
    if (e.code() == "numeric.nonfinite") writer.finish(header(model, request, tokens, calls));
    throw;
  }
  writer.finish(header(model, request, tokens, calls));
}

}  // namespace plumb::trace
