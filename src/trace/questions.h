// Prompts whose greedy continuations tell the most about an engine that shows nothing but its choices: those
// on which the faults of the catalogue part ways.
#pragma once

#include "trace/diagnose.h"

namespace plumb::trace {

struct Question {
  std::vector<int> prompt;  // ids
  double bits = 0;          // that it adds to those before it, of what faults do, each as likely as another
};

struct Questions {
  std::vector<Question> asked;
  int64_t faults = 0, classes = 0;  // simulated; told apart by their first choices
};

struct QuestionsRequest {
  const Model& model;
  int count = 6;
  std::atomic<bool>* cancel = nullptr;
  Progress progress = {};
};

/// Throws Error "run.cancelled".
Questions choose_questions(const QuestionsRequest& request);

}  // namespace plumb::trace
