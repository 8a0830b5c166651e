// A function object out of several lambdas, for std::visit.
#pragma once

namespace plumb {

template <class... F>
struct Overload : F... {
  using F::operator()...;
};

}  // namespace plumb
