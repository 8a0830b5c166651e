// What the server says about itself: health, models, properties, slots, Prometheus metrics, and its page.
#include <fmt/format.h>

#include "base/error.h"
#include "server/native.h"
#include "server/web_files.h"

namespace plumb::server {

namespace {

std::string histogram_text(const char* name, const Histogram& h) {
  std::string out = fmt::format("# TYPE plumb:{} histogram\n", name);
  int64_t below = 0;
  for (size_t i = 0; i < h.kBounds.size(); ++i) {
    below += h.counts[i];
    out += fmt::format("plumb:{}_bucket{{le=\"{}\"}} {}\n", name, h.kBounds[i], below);
  }
  out += fmt::format("plumb:{}_bucket{{le=\"+Inf\"}} {}\n", name, h.count);
  return out + fmt::format("plumb:{0}_sum {1}\nplumb:{0}_count {2}\n", name, h.sum, h.count);
}

}  // namespace

void handle_health(Call& call) { call.reply->send({200, "{\"status\":\"ok\"}"}); }

void handle_models(Call& call) {
  const Service& s = call.service;
  Json meta, model, out;
  meta.set("n_ctx_train", s.model.program().n_ctx_train), meta.set("n_vocab", s.model.n_vocab());
  model.set("id", s.model_id), model.set("object", "model"), model.set("created", int64_t(s.started));
  model.set("owned_by", "plumb"), model.set("meta", std::move(meta));
  out.set("object", "list"), out.set("data", Json(Json::Array{std::move(model)}));
  call.reply->send({200, dump(out)});
}

void handle_props(Call& call) {
  const Service& s = call.service;
  const Tokenizer& tokenizer = s.model.tokenizer();
  Json out, defaults;
  defaults.set("n_ctx", s.scheduler.n_ctx());
  out.set("default_generation_settings", std::move(defaults));
  out.set("total_slots", int64_t(s.scheduler.slots().size())), out.set("model_alias", s.model_id);
  out.set("chat_template", s.chat ? s.chat->source() : "");
  out.set("bos_token", token_text(tokenizer, tokenizer.bos()));
  out.set("eos_token", token_text(tokenizer, tokenizer.eos()));
  out.set("system_fingerprint", s.fingerprint);
  call.reply->send({200, dump(out)});
}

void handle_slots(Call& call) {
  if (!call.service.slots_shown)
    throw Error({.code = "server.not_supported", .expected = "a server started with --slots"});
  Json::Array out;
  for (const SlotState& slot : call.service.scheduler.slots()) {
    Json one;
    one.set("id", slot.id), one.set("n_ctx", call.service.scheduler.n_ctx()),
        one.set("is_processing", slot.busy);
    one.set("n_past", slot.length), one.set("n_prompt_tokens", slot.prompt_tokens);
    one.set("n_decoded", slot.answer_tokens);
    out.push_back(std::move(one));
  }
  call.reply->send({200, dump(out)});
}

void handle_metrics(Call& call) {
  if (!call.service.metrics_shown)
    throw Error({.code = "server.not_supported", .expected = "a server started with --metrics"});
  const SchedulerCounts c = call.service.scheduler.counts();
  std::string out;
  const auto add = [&](const char* type, const char* name, double value) {
    out += fmt::format("# TYPE plumb:{} {}\nplumb:{} {}\n", name, type, name, value);
  };
  const auto rate = [](int64_t n, double s) { return s > 0 ? double(n) / s : 0; };
  add("counter", "prompt_tokens_total", double(c.prompt_tokens));
  add("counter", "prompt_tokens_cached_total", double(c.cached_tokens));
  add("counter", "prompt_seconds_total", c.prompt_seconds);
  add("counter", "tokens_predicted_total", double(c.answer_tokens));
  add("counter", "tokens_predicted_seconds_total", c.answer_seconds);
  add("counter", "n_decode_total", double(c.passes));
  add("gauge", "n_tokens_max", double(c.longest));
  add("gauge", "n_busy_slots_per_decode", c.passes > 0 ? double(c.busy_slots) / double(c.passes) : 0);
  add("gauge", "prompt_tokens_seconds", rate(c.prompt_tokens, c.prompt_seconds));
  add("gauge", "predicted_tokens_seconds", rate(c.answer_tokens, c.answer_seconds));
  add("gauge", "requests_processing", c.processing);
  add("gauge", "requests_deferred", c.waiting);
  add("counter", "finished_total", double(c.finished));
  add("counter", "cancelled_total", double(c.cancelled));
  out += fmt::format("# TYPE plumb:rejected_total counter\nplumb:rejected_total{{reason=\"queue\"}} {}\n",
                     c.rejected);
  add("counter", "nonfinite_total", double(c.nonfinite));
  add("counter", "cache_evictions_total", double(c.evictions));
  out += fmt::format(
      "# TYPE plumb:memory_bytes gauge\nplumb:memory_bytes{{kind=\"cache\"}} "
      "{}\nplumb:memory_bytes{{kind=\"slots\"}} "
      "{}\n",
      c.kept_bytes, c.slot_bytes);
  out += histogram_text("queue_wait_seconds", c.queue_wait);
  out += histogram_text("first_token_seconds", c.first_token);
  out += histogram_text("token_gap_seconds", c.gap);
  if (call.traffic) out += call.traffic->metrics();
  call.reply->send({200, out, "text/plain; version=0.0.4; charset=utf-8"});
}

HttpResponse page_file(const std::string& path) {
  const std::string name = path == "/" ? "index.html" : path.substr(1);
  for (const EmbeddedFile& file : web_files()) {
    if (file.name != name) continue;
    const char* type = name.ends_with(".html")   ? "text/html; charset=utf-8"
                       : name.ends_with(".css")  ? "text/css; charset=utf-8"
                       : name.ends_with(".json") ? "application/json; charset=utf-8"
                                                 : "text/javascript; charset=utf-8";
    return HttpResponse{
        200,
        std::string(file.text),
        type,
        {{"Content-Security-Policy",
          "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
          "form-action 'none'"},
         {"Referrer-Policy", "no-referrer"}}};
  }
  throw Error({.code = "request.path", .expected = "a file of the page", .found = "none of that name"});
}

}  // namespace plumb::server
