// Attention of a whole call with its scores and weights kept: what traces call attn.kq and attn.probs, and
// how faults compute it otherwise (program/wrong.h). With right fields the output equals ops::attention bit
// for bit.
#pragma once

#include "program/wrong_ops.h"

namespace plumb::ops {

template <class T>
struct AttentionCall {
  const Attention& op;
  Shape q, kv;
  int tokens = 0;
  int64_t keys = 0;    // rows of the cache, those of this call included
  int64_t prompt = 0;  // of them, rows of the first call
  bool step = false;
  std::span<const T> queries;                // [tokens, q.size()]
  std::span<const T> keys_in_cache, values;  // [keys, kv.size()]
  std::vector<T> kq = {}, probs = {};        // [tokens, q.heads, keys]
  std::vector<T> kqv = {};                   // [tokens, q.heads, dim]

  size_t at(int t, int h, int64_t u) const { return size_t((int64_t(t) * q.heads + h) * keys + u); }
  int64_t slot(int t) const { return keys - tokens + t; }

  int kv_head(int h, WrongHeads wrong) const {
    const int right = op.map == HeadMap::grouped ? h / (q.heads / kv.heads) : h % kv.heads;
    switch (wrong) {
      case WrongHeads::right:
        return right;
      case WrongHeads::interleaved:
        return h % kv.heads;
      case WrongHeads::zero:
        return 0;
      case WrongHeads::reversed:
        return kv.heads - 1 - right;
    }
    return right;
  }

  /// The start of what query head h reads as slot u of a kv head.
  size_t place(int64_t u, int h, int head) const {
    if (op.wrong.view != CacheView::rows_repeated) return place(u, head);
    const int64_t flat = u * q.heads + h;
    return size_t((flat / kv.heads % keys * kv.heads + flat % kv.heads) * kv.dim);
  }
  size_t place(int64_t u, int head) const {
    if (op.wrong.view == CacheView::heads_first && step && u < prompt) {
      const int64_t flat = (u * kv.heads + head) * kv.dim;  // as read; stored [head, token, dim]
      const int64_t stored_head = flat / (prompt * kv.dim), token = flat / kv.dim % prompt;
      return size_t((token * kv.heads + stored_head) * kv.dim);
    }
    return size_t((u * kv.heads + head) * kv.dim);
  }

  bool visible(int t, int64_t u) const {
    const int64_t s = slot(t);
    if (op.wrong.view == CacheView::first_window && step && op.window > 0) return u < op.window - 1 || u == s;
    if (op.window > 0 && u < s - op.window + 1) return false;
    switch (op.wrong.mask) {
      case MaskRule::causal:
        return u <= s;
      case MaskRule::none:
        return true;
      case MaskRule::excludes_self:
        return u < s;
      case MaskRule::sees_next:
        return u <= s + 1;
      case MaskRule::backwards:
        return u >= s;
    }
    return true;
  }

  void score(int t, int h) {
    const T* x = queries.data() + int64_t(t) * q.size() + h * q.dim;
    for (int64_t u = 0; u < keys; ++u) {
      const T* k = keys_in_cache.data() + place(u, h, kv_head(h, op.wrong.k_heads));
      kq[at(t, h, u)] = rounded(op.wrong.scores, dot(x, k, q.dim));
    }
  }

  /// The scores that the softmax sees, from kq into probs; true: this one does not count.
  bool masked(int t, int h, int64_t u) {
    T s = kq[at(t, h, u)] * T(op.scale);
    if (op.wrong.softcap > 0) s = T(op.wrong.softcap) * std::tanh(s / T(op.wrong.softcap));
    const bool seen = visible(t, u);
    if (!seen && op.wrong.masked == MaskedScore::number) s = T(op.wrong.mask_value);
    if (!seen && op.wrong.masked == MaskedScore::added) s += T(op.wrong.mask_value);
    probs[at(t, h, u)] = s;
    return !seen && op.wrong.masked == MaskedScore::infinite;
  }

  /// Over `count` entries of probs, entry i at place(i).
  template <class Place, class Hidden>
  void softmax(int64_t count, const Place& place_of, const Hidden& hidden) {
    T largest = -std::numeric_limits<T>::infinity(), sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      if (!hidden(i)) largest = std::max(largest, probs[place_of(i)]);
    }
    if (op.wrong.sink) largest = std::max(largest, T(0)), sum = std::exp(-largest);
    for (int64_t i = 0; i < count; ++i) {
      T& p = probs[place_of(i)];
      if (hidden(i)) {
        p = largest == -std::numeric_limits<T>::infinity() ? std::numeric_limits<T>::quiet_NaN() : T(0);
      } else {
        sum += p = std::exp(p - largest);
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      T& p = probs[place_of(i)];
      if (!hidden(i)) p = p / sum;
    }
  }

  void weigh() {
    std::vector<char> hidden(probs.size());
    for (int t = 0; t < tokens; ++t) {
      for (int h = 0; h < q.heads; ++h) {
        for (int64_t u = 0; u < keys; ++u) hidden[at(t, h, u)] = masked(t, h, u);
      }
    }
    const auto run = [&](int64_t count, const auto& place_of) {
      softmax(count, place_of, [&](int64_t i) { return hidden[place_of(i)] != 0; });
    };
    if (op.wrong.axis == SoftmaxAxis::queries) {
      for (int h = 0; h < q.heads; ++h) {
        for (int64_t u = 0; u < keys; ++u) run(tokens, [&](int64_t i) { return at(int(i), h, u); });
      }
    } else if (op.wrong.axis == SoftmaxAxis::heads) {
      for (int t = 0; t < tokens; ++t) {
        for (int64_t u = 0; u < keys; ++u) run(q.heads, [&](int64_t i) { return at(t, int(i), u); });
      }
    } else {
      for (int t = 0; t < tokens; ++t) {
        for (int h = 0; h < q.heads; ++h) run(keys, [&](int64_t i) { return at(t, h, i); });
      }
    }
    if (op.wrong.masked != MaskedScore::after_softmax) return;
    for (int t = 0; t < tokens; ++t) {
      for (int h = 0; h < q.heads; ++h) {
        for (int64_t u = 0; u < keys; ++u) {
          if (!visible(t, u)) probs[at(t, h, u)] = 0;
        }
      }
    }
  }

  /// Element j of head h of token t in the output [tokens, q.size()].
  size_t merged(int t, int h, int j) const {
    if (op.wrong.merge == MergeOrder::dim_first) return size_t(t * q.size() + j * q.heads + h);
    if (op.wrong.merge == MergeOrder::tokens_inside) return size_t((h * tokens + t) * q.dim + j);
    return size_t(t * q.size() + h * q.dim + j);
  }

  void sum_values(int t, int h, std::span<T> out) {
    const std::span<T> y = std::span(kqv).subspan(size_t((t * q.heads + h) * q.dim), size_t(q.dim));
    for (int64_t u = 0; u < keys; ++u) {
      const T p = probs[at(t, h, u)];
      if (p == 0) continue;
      const T* v = values.data() + place(u, h, kv_head(h, op.wrong.v_heads));
      for (size_t j = 0; j < y.size(); ++j) y[j] += p * v[j];
    }
    for (int j = 0; j < q.dim; ++j) out[merged(t, h, j)] = y[size_t(j)];
  }

  void run(Pool& pool, std::span<T> out) {
    kq.resize(size_t(tokens * q.heads * keys));
    probs.resize(kq.size());
    kqv.assign(size_t(tokens * q.size()), T(0));
    pool.each(tokens * q.heads, [&](int unit) { score(unit / q.heads, unit % q.heads); });
    if (op.wrong.one_head) {
      for (int t = 0; t < tokens; ++t) {
        for (int64_t u = 0; u < keys; ++u) {
          T sum = 0;
          for (int h = 0; h < q.heads; ++h) sum += kq[at(t, h, u)];
          for (int h = 0; h < q.heads; ++h) kq[at(t, h, u)] = sum;
        }
      }
    }
    weigh();
    pool.each(tokens * q.heads, [&](int unit) { sum_values(unit / q.heads, unit % q.heads, out); });
  }
};

}  // namespace plumb::ops
