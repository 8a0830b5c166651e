#include "engine/runner.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/cancel.h"
#include "base/error.h"
#include "base/half.h"
#include "engine/cpu_runner.h"
#include "engine/cuda_hybrid.h"
#include "engine/on_device.h"
#include "program/reference.h"

namespace plumb {
namespace {

// A whole model on a device, or its first layers.
template <class Sequence>
class CudaRunner : public Runner {
 public:
  CudaRunner(const Model& model, const RunnerOptions& options)
      : Runner(model, options), sequence_(sequence()) {}

 private:
  Sequence sequence() const {
    const CudaOptions cuda = cuda_options(model_, options_);
    if constexpr (std::is_same_v<Sequence, CudaSequence>) {
      return {model_.program(), model_.on_device(cuda), cuda};
    } else {
      return {model_.program(),
              model_.pool(),
              {options_.device_layers, cuda, options_.kv, model_.isa()},
              [this](double share) { model_.progress()("loading", share); }};
    }
  }

  std::span<const float> decode_piece(std::span<const int> tokens, bool last) override {
    if constexpr (std::is_same_v<Sequence, HybridSequence>)
      return sequence_.decode(tokens, length_, last, next_piece_);
    else
      return sequence_.decode(tokens, length_, last);
  }

  void observe_piece(std::span<const int> tokens, Value value, const See& see) override {
    const std::span<const float> rows = sequence_.observe(tokens, length_, value);
    const int64_t size = model_.program().shape(value).size();
    for (size_t t = 0; t < tokens.size(); ++t) {
      const auto row = rows.subspan(t * size_t(row_stride(size)), size_t(size));
      see(length_ + int64_t(t), std::vector<double>(row.begin(), row.end()));
    }
  }

  Sequence sequence_;
};

std::unique_ptr<Runner> make_cuda(const Model& model, const RunnerOptions& asked) {
  const Program& program = model.program();
  RunnerOptions options = asked;
  if (asked.fit) {
    const Fit fit = fit_layers(program, cuda_options(model, asked));
    options.device_layers = fit.layers;
    if (asked.note) asked.note(fit.text(program.n_layer));
  } else if (asked.device_layers >= 0 && asked.device_layers < program.n_layer) {
    check_fits(program, cuda_options(model, asked), asked.device_layers);
  }
  if (options.device_layers == 0) return make_cpu_runner(model, options);
  if (options.device_layers < 0 || options.device_layers >= program.n_layer) {
    return std::make_unique<CudaRunner<CudaSequence>>(model, options);
  }
  return std::make_unique<CudaRunner<HybridSequence>>(model, options);
}

template <class T>
class ReferenceRunner : public Runner {
 public:
  ReferenceRunner(const Model& model, const RunnerOptions& options)
      : Runner(model, options), reference_(model.program(), model.pool()) {
    reference_.set_arithmetic(options.arithmetic);
    if (options.nodes == NodeRounding::none) return;
    reference_.round_with([half = options.nodes == NodeRounding::f16](std::span<T> rows) {
      for (T& x : rows)
        x = T(half ? half_to_float(float_to_half(float(x))) : bfloat16_to_float(float_to_bfloat16(float(x))));
    });
  }

 private:
  std::span<const float> decode_piece(std::span<const int> tokens, bool) override {
    const Program& p = model_.program();
    typename Reference<T>::Task task{.until = p.output};
    task.see = [&](Value v, std::span<const T> rows) {
      if (options_.taps.count(v))
        options_.see({v, length_, int(tokens.size()), p.shape(v).size(), rows.data()});
      if (v != p.output) return;
      const auto last = rows.last(rows.size() / tokens.size());
      logits_.assign(last.begin(), last.end());
    };
    if (!options_.inner_taps.empty()) task.inner_of.resize(p.nodes.size());
    for (Value v : options_.inner_taps) task.inner_of[size_t(v)] = true;
    task.see_inner = [&](Value v, Inner part, int64_t dim, std::span<const T> rows) {
      const int heads = p.shape(p.nodes[size_t(v)].in[0]).heads;
      options_.see_inner({v, part, length_, int(tokens.size()), heads, dim, rows.data()});
    };
    reference_.run(tokens, task);
    return logits_;
  }

  void observe_piece(std::span<const int> tokens, Value value, const See& see) override {
    reference_.run(tokens, value, [&](Value v, std::span<const T> rows) {
      if (v != value) return;
      const size_t size = rows.size() / tokens.size();
      for (size_t t = 0; t < tokens.size(); ++t) {
        const auto row = rows.subspan(t * size, size);
        see(length_ + int64_t(t), std::vector<double>(row.begin(), row.end()));
      }
    });
  }

  Reference<T> reference_;
  std::vector<float> logits_;
};

}  // namespace

std::unique_ptr<Runner> Runner::make(const Model& model, const RunnerOptions& options) {
  switch (options.arith) {
    case Arith::ref32:
      return std::make_unique<ReferenceRunner<float>>(model, options);
    case Arith::ref64:
      return std::make_unique<ReferenceRunner<double>>(model, options);
    case Arith::fast:
    case Arith::f32:
      break;
  }
  if (on_device(options)) {
    try {
      return make_cuda(model, options);
    } catch (const Error& e) {
      if (!may_fall_back(options, e)) throw;
      return make_cpu_runner(model, on_cpu_instead(options, e));
    }
  }
  return make_cpu_runner(model, options);
}

Runner::Runner(const Model& model, const RunnerOptions& options)
    : model_(model), options_(options), n_ctx_(context_of(model, options)), reach_(model.program().output) {
  PLUMB_CHECK(options.n_ubatch >= 1);
  PLUMB_CHECK(options.inner_taps.empty() ||
              (options.see_inner && (options.arith == Arith::ref32 || options.arith == Arith::ref64)));
  PLUMB_CHECK(options.taps.empty() || (options.see && options.draft == 0 &&
                                       (options.arith != Arith::fast || options.backend == Backend::cpu)));
  options_.n_ubatch = int(std::min<int64_t>(options_.n_ubatch, n_ctx_));
}

void check_tokens(const Model& model, std::span<const int> tokens, int64_t length, int64_t n_ctx) {
  if (length + int64_t(tokens.size()) > n_ctx) {
    throw Error({.code = "context.full",
                 .expected = fmt::format("at most {} tokens of context", n_ctx),
                 .found = fmt::format("{}", length + int64_t(tokens.size())),
                 .remedy = fmt::format("shorten the prompt or raise -c (the model was trained with {})",
                                       model.program().n_ctx_train)});
  }
  for (int id : tokens) {
    if (id < 0 || id >= model.n_vocab()) {
      throw Error({.code = "token.range",
                   .expected = fmt::format("token ids from 0 to {}", model.n_vocab() - 1),
                   .found = std::to_string(id)});
    }
  }
}

void Runner::pieces(std::span<const int> tokens, int most,
                    const std::function<void(std::span<const int>, bool)>& run) {
  check_tokens(model_, tokens, length_, n_ctx_);
  const size_t total = tokens.size();
  const auto first_piece = [&] {
    size_t n = std::min(tokens.size(), size_t(most));
    if (tokens.size() == n + 1 && n > 2)
      --n;  // a token alone takes other kernels on CUDA, with other bits in f16
    return tokens.first(n);
  };
  while (!tokens.empty()) {
    stop_if(options_.cancel);
    const auto piece = first_piece();
    tokens = tokens.subspan(piece.size());
    next_piece_ = first_piece();
    run(piece, tokens.empty());
    length_ += int64_t(piece.size());
    if (total > 1) model_.progress()("prompt", double(total - tokens.size()) / double(total));
  }
}

std::span<const float> Runner::decode(std::span<const int> tokens) {
  PLUMB_CHECK(!tokens.empty() && reach_ == model_.program().output);
  std::span<const float> logits;
  pieces(tokens, options_.n_ubatch,
         [&](std::span<const int> piece, bool last) { logits = decode_piece(piece, last); });
  return logits;
}

void Runner::truncate(int64_t length) {
  PLUMB_CHECK(options_.arith == Arith::fast && length >= 0 && length <= length_);
  length_ = length;
  forget();
}

void Runner::observe(std::span<const int> tokens, Value value, bool all, const See& see) {
  PLUMB_CHECK(value <= reach_);
  reach_ = value;
  // At most 64 MB of the value at a time.
  observe_most_ =
      int(std::clamp<int64_t>((1 << 24) / model_.program().shape(value).size(), 1, options_.n_ubatch));
  pieces(tokens, observe_most_, [&](std::span<const int> piece, bool last) {
    observe_piece(piece, value, [&](int64_t position, std::span<const double> row) {
      if (all || (last && position == length_ + int64_t(piece.size()) - 1)) see(position, row);
    });
  });
}

}  // namespace plumb
