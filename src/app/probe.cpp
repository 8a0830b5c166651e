// plumb probe: questions for engines that show nothing but their text.
#include "trace/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <thread>

#include "app/command.h"
#include "app/flags.h"
#include "app/progress.h"
#include "base/error.h"
#include "base/json.h"
#include "quant/encode.h"
#include "trace/probe_model.h"
#include "trace/questions.h"

namespace plumb {
namespace {

constexpr int kAnswer = 16;  // ids to ask for behind each prompt

struct ProbeOptions {
  ModelFlags model;
  std::string out, types;
  int threads = 0;
  bool json = false;
};

std::vector<Format> parse_formats(const std::string& list) {
  std::vector<Format> formats;
  for (size_t at = 0; at <= list.size();) {
    const size_t comma = std::min(list.find(',', at), list.size());
    const std::string name = list.substr(at, comma - at);
    const FormatInfo* f = find_format(std::string_view(name));
    if (!f || !can_encode(f->format)) {
      throw Error({.code = "usage.value",
                   .expected = "formats that can be written, such as Q8_0,Q4_K",
                   .found = printable(name),
                   .where = {.key = "--type"}});
    }
    formats.push_back(f->format);
    at = comma + 1;
  }
  return formats;
}

Json as_json(const trace::ProbeBook& b) {
  Json j, faults;
  j.set("prompt", trace::kProbePrompt);
  j.set("ids", Json::Array(b.prompt.begin(), b.prompt.end()));
  j.set("ok", trace::ProbeModel::kOk);
  j.set("margin", b.margin);
  std::map<int, std::string> texts(b.names.begin(), b.names.end());
  for (const trace::ProbeEntry& e : b.entries) {
    Json f;
    f.set("id", id_of(e)), f.set("fault", full_name(*e.fault));
    if (e.answer >= 0) {
      f.set("answer", texts[e.answer]), f.set("token", e.answer), f.set("after", e.step),
          f.set("margin", e.margin);
    } else {
      f.set("why_not", e.why_not);
    }
    faults.push(std::move(f));
  }
  j.set("faults", std::move(faults));
  return j;
}

void print_book(const ProbeOptions& o, const trace::ProbeBook& book) {
  const auto count = [&](auto condition) {
    return std::count_if(book.entries.begin(), book.entries.end(), condition);
  };
  const auto usual = [](const auto& e) { return e.parameter == e.fault->parameter.usual; };
  const auto all = count(usual);
  const auto named = count([&](const auto& e) { return usual(e) && e.answer >= 0; });
  const auto values = count([&](const auto& e) { return !usual(e) && e.answer >= 0; });
  const auto blind = count([&](const auto& e) { return usual(e) && e.fits && e.answer < 0; });
  print_out(fmt::format("{}   names {} faults, of parametric ones {} more values, in {} classes\n", o.out,
                        named, values, book.names.size()));
  print_out(fmt::format("ask     \"{}\"   as plain text without a chat template; 4 tokens, greedy\n",
                        trace::kProbePrompt));
  print_out("read    the first word that is not \"ok\"; a right engine says \"ok ok ok\" and stops\n");
  print_out(
      fmt::format("blind   {} faults that the model could have do not show, {} need another model or\n"
                  "        formats that it lacks (--type); --json says which and why\n",
                  blind, all - named - blind));
  print_out(fmt::format("try     plumb run -m {} -p '{}' -n 4 --fault F1\n", o.out, trace::kProbePrompt));
  flush_out();
}

void write_file(const ProbeOptions& o) {
  catch_interrupt();
  ProgressBar bar;
  trace::ProbeFileOptions options{
      .threads = o.threads > 0 ? o.threads : int(std::max(1u, std::thread::hardware_concurrency())),
      .cancel = &interrupt_flag(),
      .progress = bar.callback()};
  if (!o.types.empty()) options.formats = parse_formats(o.types);
  const trace::ProbeBook book = write_probe_file(o.out, options);
  bar.erase();
  if (o.json) {
    print_out(dump(as_json(book), {.indent = 2}) + "\n");
    return flush_out();
  }
  print_book(o, book);
}

Json as_json(const trace::Questions& q, const Model& model) {
  Json j, prompts;
  for (const trace::Question& question : q.asked) {
    Json p;
    p.set("ids", Json::Array(question.prompt.begin(), question.prompt.end()));
    p.set("text", model.tokenizer().decode(question.prompt, true)), p.set("bits", question.bits);
    p.set("answer", Json::Array());
    prompts.push(std::move(p));
  }
  j.set("plumb_probe", 1), j.set("predict", kAnswer), j.set("prompts", std::move(prompts));
  j.set("faults", q.faults), j.set("classes", q.classes);
  return j;
}

void print_questions(const trace::Questions& q, const Model& model) {
  for (const trace::Question& question : q.asked) {
    std::string ids;
    for (const int id : question.prompt) ids += fmt::format("{}{}", ids.empty() ? "" : ",", id);
    print_out(fmt::format("{:<40} {:.1f} bits   {}\n", ids, question.bits,
                          printable(model.tokenizer().decode(question.prompt, true))));
  }
  print_out(fmt::format("{} faults, {} classes by the first {} choices\n", q.faults, q.classes, 4));
  print_out(fmt::format(
      "ask     each as token ids, greedily, for {} ids\n"
      "then    put them into \"answer\" of --json's output, and plumb diagnose THAT.json -m MODEL\n",
      kAnswer));
  flush_out();
}

void choose_prompts(const ProbeOptions& o) {
  catch_interrupt();
  ProgressBar bar;
  const Model model(o.model.path(), o.model.options(bar.callback()));
  const trace::Questions q =
      trace::choose_questions({.model = model, .cancel = &interrupt_flag(), .progress = bar.callback()});
  bar.erase();
  if (!o.json) return print_questions(q, model);
  print_out(dump(as_json(q, model), {.indent = 1, .ascii = true}) + "\n");
  flush_out();
}

}  // namespace

void add_probe(CLI::App& root) {
  CLI::App* c = root.add_subcommand("probe", "Questions for engines that show nothing but their text");
  const auto o = std::make_shared<ProbeOptions>();
  flag(c, "--gguf", o->out, "Write a tiny model whose own text names the bug of the engine that runs it");
  flag(c, "-m,--model", o->model.model, "Or: six prompts for engines that run this GGUF file");
  flag(c, "--type", o->types,
       "Formats of its matrices, in turn, separated by commas; default Q8_0,Q4_K,Q6_K");
  flag(c, "-t,--threads", o->threads, "Threads; default all");
  c->add_flag("--json", o->json, "What it says of which fault, as JSON");
  c->require_option();
  c->callback([o] {
    if (o->out.empty() == o->model.model.empty())
      throw Error({.code = "usage.probe",
                   .expected = "either --gguf or -m",
                   .found = o->out.empty() ? "neither" : "both"});
    o->model.threads = o->threads;
    o->out.empty() ? choose_prompts(*o) : write_file(*o);
  });
}

}  // namespace plumb
