// What `plumb diff --weights` says, as text, JSON and page.
#pragma once

#include "app/report_page.h"
#include "trace/weights.h"

namespace plumb {

std::string weights_text(const trace::WeightsDiff& diff);
Json weights_json(const trace::WeightsDiff& diff);
Report weights_page(const trace::WeightsDiff& diff, const trace::Weights& a, const trace::Weights& b);

/// 0 the same or the same but for their formats, 1 different with every cause named, 2 different, 3 no common
/// tensor.
int weights_status(const trace::WeightsDiff& diff);

}  // namespace plumb
