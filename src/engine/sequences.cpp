#include "engine/sequences.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "engine/on_device.h"
#include "engine/passes.h"

namespace plumb {
struct Sequences::State {
  struct Sequence {
    KvCache cache;
    int64_t length = 0;
  };

  State(const Model& model_, const RunnerOptions& options_, int count, int max_wanted_)
      : model(model_), options(options_), n_ctx(context_of(model_, options_)), max_wanted(max_wanted_) {
    for (int i = 0; i < count; ++i) sequences.push_back({KvCache(model.program(), options.kv)});
    open();
  }

  void open() {
    if (passes) return;
    passes = Passes::make(model, options, int(sequences.size()), max_wanted);
    for (Sequence& s : sequences) s = {passes->new_cache()};
  }

  KvCache new_cache() const { return passes ? passes->new_cache() : KvCache(model.program(), options.kv); }

  void run(Pass& pass, const SeePass& see) {
    if (pass.tokens.empty()) return;
    if (options.cancel && options.cancel->load())
      throw Error({.code = "run.cancelled", .found = "an interrupt"});
    for (size_t i = pass.tokens.size(); i-- > 0;)  // its last token asks for all that a sequence needs
      pass.caches[i]->reserve(pass.positions[i] + 1);
    passes->run(pass);
    for (int s : pass.sequences) ++sequences[size_t(s)].length;
    std::vector<Row> rows;
    for (size_t i = 0; i < pass.wanted.size(); ++i) {
      const size_t row = size_t(pass.wanted[i]);
      rows.push_back({pass.sequences[row], pass.positions[row], passes->row(int(i))});
    }
    see(rows);
    pass = {};
  }

  const Model& model;
  RunnerOptions options;
  int64_t n_ctx;
  int max_wanted;
  std::unique_ptr<Passes> passes;
  std::vector<Sequence> sequences;
};

Sequences::Sequences(const Model& model, const RunnerOptions& options, int count, int max_wanted) {
  PLUMB_CHECK(count >= 1 && max_wanted >= 1 && options.n_ubatch >= 1);
  state_ = std::make_unique<State>(model, options, count, std::min(max_wanted, options.n_ubatch));
}

Sequences::~Sequences() = default;

int Sequences::count() const { return int(state_->sequences.size()); }
int64_t Sequences::n_ctx() const { return state_->n_ctx; }
int64_t Sequences::length(int sequence) const { return state_->sequences[size_t(sequence)].length; }
const Plan& Sequences::plan() const { return state_->passes->plan(); }

void Sequences::decode(std::span<const Piece> pieces, const See& see) {
  decode_passes(pieces, [&](std::span<const Row> rows) {
    for (const Row& r : rows) see(r.sequence, r.position, r.logits);
  });
}

void Sequences::decode_passes(std::span<const Piece> pieces, const SeePass& see) {
  State& s = *state_;
  s.open();
  std::vector<bool> named(s.sequences.size());
  for (const Piece& p : pieces) {
    PLUMB_CHECK(p.sequence >= 0 && p.sequence < count() && !named[size_t(p.sequence)]);
    named[size_t(p.sequence)] = true;
    check_tokens(s.model, p.tokens, length(p.sequence), s.n_ctx);
  }
  Pass pass;
  for (const Piece& p : pieces) {
    const int64_t start = length(p.sequence);
    for (size_t i = 0; i < p.tokens.size(); ++i) {
      const bool wanted = p.want == Want::all || (p.want == Want::last && i + 1 == p.tokens.size());
      if (int(pass.tokens.size()) == s.passes->plan().max_tokens ||
          (wanted && int(pass.wanted.size()) == s.passes->plan().max_wanted))
        s.run(pass, see);
      if (wanted) pass.wanted.push_back(int(pass.tokens.size()));
      pass.tokens.push_back(p.tokens[i]), pass.positions.push_back(int(start + int64_t(i)));
      pass.caches.push_back(&s.sequences[size_t(p.sequence)].cache), pass.sequences.push_back(p.sequence);
    }
  }
  s.run(pass, see);
}

void Sequences::truncate(int sequence, int64_t length) {
  int64_t& now = state_->sequences[size_t(sequence)].length;
  PLUMB_CHECK(length >= 0 && length <= now);
  now = length;
  state_->sequences[size_t(sequence)].cache.truncate(length);
}

KvCache Sequences::take(int sequence) {
  State::Sequence& s = state_->sequences[size_t(sequence)];
  s.length = 0;
  return std::exchange(s.cache, state_->new_cache());
}

void Sequences::start_from(int sequence, const KvCache& held, int64_t length) {
  State::Sequence& s = state_->sequences[size_t(sequence)];
  s.cache.share(held, length);
  s.length = length;
}

const KvCache& Sequences::cache(int sequence) const { return state_->sequences[size_t(sequence)].cache; }

void Sequences::time_steps(std::vector<StepTime>* times) {
  PLUMB_CHECK(!times || times->size() == plan().steps.size());
  state_->passes->time_steps(times);
}

}  // namespace plumb
