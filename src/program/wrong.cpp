// Finds the fields of program/wrong.h that a Program carries, by name.
#include "program/wrong.h"

#include <string>

#include "base/overload.h"
#include "program/program.h"

namespace plumb {
namespace {

struct Field {
  const char* name;
  bool wrong;
};

const char* first(std::initializer_list<Field> fields) {
  for (const Field& f : fields) {
    if (f.wrong) return f.name;
  }
  return nullptr;
}

const char* field(const WrongNode& w) {
  const WrongNode right;
  return first({{"factor", w.factor != right.factor},
                {"add", w.add != right.add},
                {"softcap", w.softcap != right.softcap},
                {"limit", w.limit != right.limit},
                {"sinusoids", w.sinusoids != right.sinusoids},
                {"roll", w.roll != right.roll},
                {"row_shift", w.row_shift != right.row_shift},
                {"round", w.round != right.round}});
}

const char* field(const WrongEmbed& w) {
  const WrongEmbed right;
  return first({{"id_offset", w.id_offset != right.id_offset}});
}

const char* field(const WrongLinear& w) {
  const WrongLinear right;
  return first({{"input", w.input != right.input},
                {"accumulator", w.accumulator != right.accumulator},
                {"block_sums_f16", w.block_sums_f16 != right.block_sums_f16}});
}

const char* field(const WrongNorm& w) {
  const WrongNorm right;
  return first({{"formula", w.formula != right.formula},
                {"weight", w.weight != right.weight},
                {"before_weight", w.before_weight != right.before_weight},
                {"repeated", w.repeated != right.repeated},
                {"whole_row", w.whole_row != right.whole_row}});
}

const char* field(const WrongRope& w) {
  const WrongRope right;
  return first({{"position", w.position != right.position},
                {"offset", w.offset != right.offset},
                {"backwards", w.backwards != right.backwards},
                {"slowest_first", w.slowest_first != right.slowest_first},
                {"turned", w.turned != right.turned},
                {"angle", w.angle != right.angle},
                {"table", w.table != right.table}});
}

const char* field(const WrongAttention& w) {
  const WrongAttention right;
  return first({{"mask", w.mask != right.mask},
                {"masked", w.masked != right.masked},
                {"mask_value", w.mask_value != right.mask_value},
                {"axis", w.axis != right.axis},
                {"softcap", w.softcap != right.softcap},
                {"sink", w.sink != right.sink},
                {"k_heads", w.k_heads != right.k_heads},
                {"v_heads", w.v_heads != right.v_heads},
                {"merge", w.merge != right.merge},
                {"one_head", w.one_head != right.one_head},
                {"v_transposed", w.v_transposed != right.v_transposed},
                {"scores", w.scores != right.scores},
                {"cache", w.cache != right.cache},
                {"slot", w.slot != right.slot},
                {"view", w.view != right.view},
                {"stores_fourth", w.stores_fourth != right.stores_fourth}});
}

const char* field(const WrongGlu& w) {
  const WrongGlu right;
  return first({{"formula", w.formula != right.formula}, {"act", w.act != right.act}});
}

const char* field(const WrongFeed& w) {
  const WrongFeed right;
  return first({{"repeats_last", w.repeats_last != right.repeats_last},
                {"lags", w.lags != right.lags},
                {"leftover", w.leftover != right.leftover}});
}

const char* field(const Op& op) {
  return std::visit(Overload{[](const Add&) -> const char* { return nullptr; },
                             [](const Scale&) -> const char* { return nullptr; },
                             [](const Gather&) -> const char* { return nullptr; },
                             [](const Slice&) -> const char* { return nullptr; },
                             [](const auto& o) { return field(o.wrong); }},
                    op);
}

}  // namespace

std::string fault_field(const Program& p) {
  if (const char* f = field(p.feed)) return std::string("feed.") + f;
  for (const Node& n : p.nodes) {
    if (const char* f = field(n.wrong)) return n.name + ": wrong." + f;
    if (const char* f = field(n.op)) return n.name + ": " + name(n.op) + " wrong." + f;
    if (n.in_steps) return n.name + ": in_steps";
  }
  for (const WeightRef& w : p.weights) {
    if (w.read) return w.name + ": read";
  }
  return {};
}

}  // namespace plumb
