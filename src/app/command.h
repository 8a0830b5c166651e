// The subcommands of `plumb`. Each add_* registers one with its flags; its callback does the work and throws
// plumb::Error on failure. Only app/ prints, exits or reads the environment: standard output carries the
// result alone.
#pragma once

namespace CLI {
class App;
}

namespace plumb {

void add_inspect(CLI::App& root);
void add_tokenize(CLI::App& root);
void add_detokenize(CLI::App& root);
void add_apply_template(CLI::App& root);
void add_show(CLI::App& root);
void add_run(CLI::App& root);
void add_chat(CLI::App& root);
void add_logits(CLI::App& root);
void add_bench(CLI::App& root);
void add_batched_bench(CLI::App& root);
void add_perplexity(CLI::App& root);
void add_trace(CLI::App& root);
void add_diff(CLI::App& root);
void add_check(CLI::App& root);
void add_record(CLI::App& root);
void add_record_log(CLI::App& record);
void add_quantize(CLI::App& root);
void add_faults(CLI::App& root);
void add_antidote(CLI::App& root);
void add_diagnose(CLI::App& root);
void add_probe(CLI::App& root);
void add_serve(CLI::App& root);

}  // namespace plumb
