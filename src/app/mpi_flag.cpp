#include "app/mpi_flag.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "app/failure.h"
#include "base/error.h"
#include "cpu/weights.h"
#include "engine/cpu_runner.h"
#include "mpi/comm.h"

namespace plumb {
namespace {

void refuse(const std::string& expected, const std::string& found) {
  throw Error({.code = "usage.mpi", .expected = expected, .found = found, .where = {.key = "--mpi"}});
}

// Of what a rank's numbers are made: flags and weights.
uint64_t key_of(const Model& model, const ModelFlags& flags, const std::set<Value>& wanted) {
  const RunnerOptions o = flags.runner(nullptr);
  std::string text = fmt::format("{} {} {} {} {}", int(o.rounding), int(o.kv.k), int(o.kv.v),
                                 std::max(o.n_ubatch, o.draft + 1), fmt::join(wanted, " "));
  for (const WeightRef& w : model.program().weights) text += sampled(w);
  return checksum(text);
}

void check_same(uint64_t mine, Comm& comm) {
  std::vector<uint64_t> all(size_t(comm.size()));
  comm.all_gather(&mine, all.data(), std::vector<int64_t>(all.size(), sizeof(mine)));
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] != all[0])
      refuse("the same model and the same flags on all ranks",
             fmt::format("others on rank {} than on rank 0", r));
  }
}

void follow(const ModelFlags& flags, Comm& comm, const MpiFlag::Wanted& wanted) {
  Model model(flags.path(), flags.options([](const char*, double) {}));
  share_model(model, flags, &comm, wanted);
  RunnerOptions options = flags.runner(nullptr);
  options.comm = &comm;
  follow_first_rank(model, options);
}

}  // namespace

void MpiFlag::add(CLI::App* c) {
  command = c;
  flag(c, "--mpi", on, "Share the model with the other processes that mpirun started; changes no bit");
}

void MpiFlag::run(const ModelFlags& flags, const std::function<void(Comm*)>& lead,
                  const Wanted& wanted) const {
  if (!on) return lead(nullptr);
  if (flags.backend != "cpu") refuse("--backend cpu", flags.backend);
  if (flags.arith != "fast") refuse("--arith fast", flags.arith);
  const CLI::Option* fault = command->get_option_no_throw("--fault");
  if (fault && fault->count() > 0) refuse("no --fault, which only the reference computes", "one");
  const std::unique_ptr<MpiComm> comm = MpiComm::start();
  try {
    if (comm->rank() > 0) {
      follow(flags, *comm, wanted);
    } else {
      lead(comm.get());
      if (comm->size() > 1) dismiss_ranks(*comm);
    }
  } catch (...) {
    comm->abort(report_failure());
  }
}

void share_model(Model& model, const ModelFlags& flags, Comm* comm, const MpiFlag::Wanted& wanted) {
  if (!comm) return;
  const std::set<Value> also = wanted(model.program());
  check_same(key_of(model, flags, also), *comm);
  model.run_as_rank(comm->rank(), comm->size(), also);
}

}  // namespace plumb
