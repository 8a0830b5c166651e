#include "app/mpi_flag.h"

#include "app/failure.h"
#include "base/error.h"
#include "engine/cpu_runner.h"
#include "mpi/comm.h"

namespace plumb {
namespace {

void refuse(const std::string& expected, const std::string& found) {
  throw Error({.code = "usage.mpi", .expected = expected, .found = found, .where = {.key = "--mpi"}});
}

void follow(const ModelFlags& flags, Comm& comm, const MpiFlag::Wanted& wanted) {
  Model model(flags.path(), flags.options([](const char*, double) {}));
  share_model(model, &comm, wanted);
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

void share_model(Model& model, Comm* comm, const MpiFlag::Wanted& wanted) {
  if (comm) model.run_as_rank(comm->rank(), comm->size(), wanted(model.program()));
}

}  // namespace plumb
