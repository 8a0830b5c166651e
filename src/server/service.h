// The server's rooms have this in common: the model, its scheduler, and what a request asks of an answer.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/chat_prompt.h"
#include "engine/scheduler.h"
#include "server/errors.h"
#include "server/fields.h"
#include "server/formats.h"
#include "server/http.h"
#include "server/traffic.h"

namespace plumb::server {

class Aside;
class Embedder;
class FileHash;
class Instrument;

struct Service {
  const Model& model;
  Scheduler& scheduler;
  const ChatPrompt* chat = nullptr;  // null: the model has no template
  Formats* formats = nullptr;        // not null
  Embedder* embedder = nullptr;      // not null
  Instrument* instrument = nullptr;  // not null
  FileHash* file_hash = nullptr;     // not null
  Aside* aside = nullptr;            // not null
  std::string model_id;
  std::string fingerprint;        // what decides the bits of an answer besides the request
  GenerateOptions defaults = {};  // of every request
  bool random_seed = true;        // where a request has none
  bool cache_prompt = true;
  Json variables = {};  // more variables of the template, or null
  std::time_t started = 0;
  bool slots_shown = true, metrics_shown = true;
};

/// One request on its way.
struct Call {
  const Service& service;
  HttpRequest request;
  Json body = {};
  std::shared_ptr<Reply> reply;
  int scope = 0;  // whose cached texts may be used
  const Traffic* traffic = nullptr;
};

/// 128 random bits behind a prefix.
std::string new_id(const char* prefix);

/// The model's name must be ours, where it is given.
void check_model(Fields& fields, const Service& service);

/// Reads the numbers of settings(), stop, logit_bias, samplers, ignore_eos, cache_prompt.
AnswerRequest read_answer_fields(Fields& fields, const Service& service, const char* stops = "stop");

/// The chat template's conversation out of messages, tools and chat_template_kwargs.
const ChatPrompt& need_chat(const Service& service);

/// Ids of a prompt: a text, or an array of ids.
std::vector<int> read_prompt(const Service& service, const Json& prompt, const std::string& pointer);

/// prompt_n, prompt_ms and their kin, as llama.cpp's server names them.
Json timings_json(const AnswerTimes& times);

}  // namespace plumb::server
