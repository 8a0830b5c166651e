// plumb faults: the catalogue of known bugs, and files that carry one. plumb antidote: files that undo one.
#include <fmt/format.h>

#include <filesystem>

#include "app/command.h"
#include "app/flags.h"
#include "base/error.h"
#include "base/json.h"
#include "models/models.h"
#include "quant/encode.h"
#include "trace/poison.h"

namespace plumb {
namespace {

using trace::Fault;

struct FaultsOptions {
  std::string id, family, in, out, type;
  bool json = false;
};

const char* name(trace::Sep sep) {
  static constexpr const char* kNames[] = {"yes", "late", "no"};
  return kNames[int(sep)];
}

std::string files_of(const Fault& f) {
  if (f.poison && f.antidote) return "poison, antidote";
  return f.poison ? "poison" : f.antidote ? "antidote" : "";
}

Json as_json(const Fault& f) {
  Json j;
  j.set("id", f.id), j.set("name", f.name), j.set("family", trace::family_name(f.id[0]));
  j.set("story", f.story), j.set("references", f.references), j.set("first", f.first);
  j.set("step", f.step), j.set("separable", name(f.sep)), j.set("equivalent", f.equivalent);
  j.set("needs", f.needs), j.set("control", f.control);
  j.set("poison", bool(f.poison)), j.set("antidote", bool(f.antidote));
  if (!f.parameter.name) return j;
  Json p;
  p.set("name", f.parameter.name), p.set("usual", f.parameter.usual);
  p.set("low", f.parameter.low), p.set("high", f.parameter.high);
  j.set("parameter", std::move(p));
  return j;
}

// Whether the fault with that id belongs to what was asked for: a letter or a word of the family's name.
bool in_family(const Fault& f, const std::string& family) {
  if (family.empty() || (family.size() == 1 && f.id[0] == std::toupper(family[0]))) return true;
  return family.size() > 1 &&
         std::string_view(trace::family_name(f.id[0])).find(family) != std::string_view::npos;
}

void list(const FaultsOptions& o) {
  Json::Array all;
  size_t shown = 0;
  char family = 0;
  for (const Fault& f : trace::catalogue()) {
    if (!in_family(f, o.family)) continue;
    ++shown;
    if (o.json) {
      all.push_back(as_json(f));
      continue;
    }
    if (family != f.id[0]) {
      family = f.id[0];
      print_out(fmt::format("{}  {}\n", family, trace::family_name(family)));
    }
    print_out(fmt::format("  {:<36} {}\n", full_name(f), f.story));
  }
  if (shown == 0) {
    throw Error({.code = "usage.value",
                 .expected = "a letter from A to N, or a word of a family's name such as rope",
                 .found = printable(o.family),
                 .where = {.key = "--family"}});
  }
  if (o.json) print_out(dump(Json(std::move(all))) + "\n");
  flush_out();
}

void show(const FaultsOptions& o) {
  const Fault& f = *trace::choose_faults(o.id)[0].fault;
  if (o.json) {
    print_out(dump(as_json(f)) + "\n");
    return flush_out();
  }
  const auto line = [](const char* key, const std::string& value) {
    if (!value.empty()) print_out(fmt::format("{:<12} {}\n", key, value));
  };
  line(f.control ? "no fault" : "fault", full_name(f) + ", " + trace::family_name(f.id[0]));
  line("story", f.story);
  line("seen in", f.references);
  line("shows at", f.first == "@weights" ? "the first operation with such a tensor" : f.first);
  if (f.step > 0) line("from", fmt::format("step {} after the prompt", f.step));
  line("needs", f.needs);
  line("statistics", f.sep == trace::Sep::yes    ? "separate it where it shows"
                     : f.sep == trace::Sep::late ? "separate it further down only, or by head or token"
                                                 : "do not separate it");
  line("equals", f.equivalent);
  line("files", files_of(f));
  if (f.parameter.name) {
    line("parameter", fmt::format("{}, {} unless given as {}=NUMBER, from {} to {}", f.parameter.name,
                                  f.parameter.usual, f.id, f.parameter.low, f.parameter.high));
  }
  line("try", fmt::format("plumb run --fault {} -p 'Hello'", f.id));
  flush_out();
}

void write_file(const FaultsOptions& o, bool antidote) {
  const trace::ChosenFault chosen = trace::choose_faults(o.id)[0];
  const Gguf file = Gguf::open(o.in);
  for (const std::string& part : file.files()) {
    std::error_code ignored;
    if (std::filesystem::equivalent(part, o.out, ignored)) {
      throw Error({.code = "usage.value",
                   .expected = "another file than the model's",
                   .found = printable(o.out),
                   .where = {.key = "--output"}});
    }
  }
  trace::CureOptions options;
  if (!o.type.empty()) {
    const FormatInfo* f = find_format(std::string_view(o.type));
    if (!f || !can_encode(f->format)) {
      throw Error({.code = "usage.value",
                   .expected = "a format that can be written, such as F32, F16 or Q8_0",
                   .found = printable(o.type),
                   .where = {.key = "--type"}});
    }
    options.format = f->format;
  }
  const Program program = build_program(file);
  (antidote ? trace::write_antidote : trace::write_poison)(file, program, chosen, o.out, options);
  fmt::print(stderr, "{} {} {}\n", o.out, antidote ? "undoes" : "carries", full_name(*chosen.fault));
}

void add_file_flags(CLI::App* c, FaultsOptions& o) {
  c->add_option("ID", o.id, "The fault, as ID or ID=NUMBER")->required();
  flag(c, "-m,--model", o.in, "Model file (GGUF)")->required();
  flag(c, "-o,--output", o.out, "File to write; replaced when it exists")->required();
  flag(c, "--type", o.type, "Type of tensors whose own cannot hold the changed numbers; default F32");
}

}  // namespace

void add_faults(CLI::App& root) {
  CLI::App* faults = root.add_subcommand("faults", "The catalogue of known bugs of engines");
  faults->require_subcommand(1);
  const auto o = std::make_shared<FaultsOptions>();
  CLI::App* c = faults->add_subcommand("list", "All faults, by family");
  flag(c, "--family", o->family, "Only this family: its letter, or a word of its name");
  c->add_flag("--json", o->json, "As JSON");
  c->callback([o] { list(*o); });
  c = faults->add_subcommand("show", "One fault");
  c->add_option("ID", o->id, "Its id")->required();
  c->add_flag("--json", o->json, "As JSON");
  c->callback([o] { show(*o); });
  c = faults->add_subcommand("poison", "Write a model file with which a right engine shows the fault");
  add_file_flags(c, *o);
  c->callback([o] { write_file(*o, false); });
}

void add_antidote(CLI::App& root) {
  CLI::App* c =
      root.add_subcommand("antidote", "Write a model file with which an engine with the fault is right");
  const auto o = std::make_shared<FaultsOptions>();
  add_file_flags(c, *o);
  c->callback([o] { write_file(*o, true); });
}

}  // namespace plumb
