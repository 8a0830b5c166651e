/* A llama in plain C that taps itself: ./example WEIGHTS TRACE ID [ID ...], then `plumb diff TRACE -m MODEL.gguf`.
 *
 * WEIGHTS is raw: seven int32 (dim, layers, heads, key-value heads, head size, feed-forward width, vocabulary), two floats
 * (norm epsilon, rope base), then the matrices in the order of struct layer, row-major in f32, token_embd in front,
 * output_norm and output at the end. tests/tap_test.py writes such a file.
 */
#define _DEFAULT_SOURCE
#define PLUMB_TAP_IMPLEMENTATION
#include "plumb_tap.h"

#include <math.h>

enum { MOST = 64 }; /* tokens */

struct shape {
  int32_t dim, n_layer, n_head, n_kv, head, n_ff, n_vocab;
  float eps, base;
};

static struct shape s;
static plumb_tap* tap;

static void tap_layer(int layer, const char* value, const float* rows, int n, int heads, int dim) {
  char name[64];
  snprintf(name, sizeof name, "blk.%d.%s", layer, value);
  plumb_tap_rows(tap, name, rows, PLUMB_TAP_F32, n, heads, dim);
}

/* y[n, out] = x[n, in] w[out, in]^T */
static void multiply(const float* x, const float* w, int n, int in, int out, float* y) {
  for (int t = 0; t < n; ++t)
    for (int o = 0; o < out; ++o) {
      float sum = 0;
      for (int i = 0; i < in; ++i) sum += x[t * in + i] * w[(size_t)o * in + i];
      y[t * out + o] = sum;
    }
}

static void rms_norm(const float* x, const float* w, int n, float* y) {
  for (int t = 0; t < n; ++t) {
    float squares = 0;
    for (int i = 0; i < s.dim; ++i) squares += x[t * s.dim + i] * x[t * s.dim + i];
    const float r = 1 / sqrtf(squares / (float)s.dim + s.eps);
    for (int i = 0; i < s.dim; ++i) y[t * s.dim + i] = x[t * s.dim + i] * r * w[i];
  }
}

/* Pairs of neighbours, as GGUF's architecture llama has them. */
static void rope(float* x, int n, int heads) {
  for (int t = 0; t < n; ++t)
    for (int h = 0; h < heads; ++h)
      for (int i = 0; i < s.head / 2; ++i) {
        float* p = x + ((t * heads + h) * s.head + 2 * i);
        const double angle = t * pow(s.base, -2.0 * i / s.head);
        const float c = (float)cos(angle), sn = (float)sin(angle), a = p[0], b = p[1];
        p[0] = a * c - b * sn, p[1] = a * sn + b * c;
      }
}

static void attend(const float* q, const float* k, const float* v, int n, float* y) {
  for (int t = 0; t < n; ++t)
    for (int h = 0; h < s.n_head; ++h) {
      const int kv = h / (s.n_head / s.n_kv);
      float p[MOST], most = -INFINITY, sum = 0;
      for (int u = 0; u <= t; ++u) {
        p[u] = 0;
        for (int i = 0; i < s.head; ++i) p[u] += q[(t * s.n_head + h) * s.head + i] * k[(u * s.n_kv + kv) * s.head + i];
        p[u] /= sqrtf((float)s.head);
        if (p[u] > most) most = p[u];
      }
      for (int u = 0; u <= t; ++u) sum += p[u] = expf(p[u] - most);
      for (int i = 0; i < s.head; ++i) {
        float out = 0;
        for (int u = 0; u <= t; ++u) out += p[u] / sum * v[(u * s.n_kv + kv) * s.head + i];
        y[(t * s.n_head + h) * s.head + i] = out;
      }
    }
}

static const float* take(const float** w, size_t n) {
  const float* at = *w;
  *w += n;
  return at;
}

/* One layer: x[n, dim] in place. */
static void block(int layer, const float** w, int n, float* x, float* room) {
  const int qd = s.n_head * s.head, kd = s.n_kv * s.head;
  float *h = room, *q = h + n * s.dim, *k = q + n * qd, *v = k + n * kd, *a = v + n * kd, *y = a + n * qd;
  float *gate = y + n * s.dim, *up = gate + n * s.n_ff;
  rms_norm(x, take(w, (size_t)s.dim), n, h), tap_layer(layer, "attn_norm", h, n, 0, s.dim);
  multiply(h, take(w, (size_t)qd * s.dim), n, s.dim, qd, q), tap_layer(layer, "attn_q", q, n, s.n_head, s.head);
  multiply(h, take(w, (size_t)kd * s.dim), n, s.dim, kd, k), tap_layer(layer, "attn_k", k, n, s.n_kv, s.head);
  multiply(h, take(w, (size_t)kd * s.dim), n, s.dim, kd, v), tap_layer(layer, "attn_v", v, n, s.n_kv, s.head);
  rope(q, n, s.n_head), tap_layer(layer, "q_rope", q, n, s.n_head, s.head);
  rope(k, n, s.n_kv), tap_layer(layer, "k_rope", k, n, s.n_kv, s.head);
  attend(q, k, v, n, a), tap_layer(layer, "attn", a, n, 0, qd);
  multiply(a, take(w, (size_t)s.dim * qd), n, qd, s.dim, y), tap_layer(layer, "attn_output", y, n, 0, s.dim);
  for (int i = 0; i < n * s.dim; ++i) x[i] += y[i];
  tap_layer(layer, "attn_out", x, n, 0, s.dim);
  rms_norm(x, take(w, (size_t)s.dim), n, h), tap_layer(layer, "ffn_norm", h, n, 0, s.dim);
  multiply(h, take(w, (size_t)s.n_ff * s.dim), n, s.dim, s.n_ff, gate), tap_layer(layer, "ffn_gate", gate, n, 0, s.n_ff);
  multiply(h, take(w, (size_t)s.n_ff * s.dim), n, s.dim, s.n_ff, up), tap_layer(layer, "ffn_up", up, n, 0, s.n_ff);
  for (int i = 0; i < n * s.n_ff; ++i) gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
  tap_layer(layer, "ffn_act", gate, n, 0, s.n_ff);
  multiply(gate, take(w, (size_t)s.dim * s.n_ff), n, s.n_ff, s.dim, y), tap_layer(layer, "ffn_down", y, n, 0, s.dim);
  for (int i = 0; i < n * s.dim; ++i) x[i] += y[i];
  tap_layer(layer, "ffn_out", x, n, 0, s.dim);
}

static int run(const float* w, const int32_t* ids, int n, const char* trace) {
  const float* embedding = take(&w, (size_t)s.n_vocab * s.dim);
  float* x = calloc((size_t)n * s.dim, sizeof *x);
  float* room = calloc((size_t)n * (3 * s.dim + 2 * s.n_head * s.head + 2 * s.n_kv * s.head + 2 * s.n_ff), sizeof *room);
  float* logits = calloc((size_t)n * s.n_vocab, sizeof *logits);
  tap = plumb_tap_begin(trace, "example.c", "llama", ids, n, n);
  plumb_tap_call(tap, n);
  for (int t = 0; t < n; ++t) memcpy(x + t * s.dim, embedding + (size_t)ids[t] * s.dim, (size_t)s.dim * sizeof *x);
  plumb_tap_rows(tap, "token_embd", x, PLUMB_TAP_F32, n, 0, s.dim);
  for (int layer = 0; layer < s.n_layer; ++layer) block(layer, &w, n, x, room);
  rms_norm(x, take(&w, (size_t)s.dim), n, room);
  plumb_tap_rows(tap, "output_norm", room, PLUMB_TAP_F32, n, 0, s.dim);
  multiply(room, w, n, s.dim, s.n_vocab, logits);
  plumb_tap_rows(tap, "logits", logits, PLUMB_TAP_F32, n, 0, s.n_vocab);
  free(x), free(room), free(logits);
  return plumb_tap_end(tap);
}

int main(int argc, char** argv) {
  int32_t ids[MOST];
  if (argc < 4 || argc > 3 + MOST) return fprintf(stderr, "example WEIGHTS TRACE ID [ID ...]\n"), 2;
  FILE* f = fopen(argv[1], "rb");
  if (!f || fread(&s, sizeof s, 1, f) != 1 || fseek(f, 0, SEEK_END) != 0) return perror(argv[1]), 1;
  const long bytes = ftell(f) - (long)sizeof s;
  float* w = malloc((size_t)bytes);
  if (!w || fseek(f, (long)sizeof s, SEEK_SET) != 0 || fread(w, 1, (size_t)bytes, f) != (size_t)bytes) return perror(argv[1]), 1;
  fclose(f);
  for (int i = 3; i < argc; ++i) {
    ids[i - 3] = atoi(argv[i]);
    if (ids[i - 3] < 0 || ids[i - 3] >= s.n_vocab) return fprintf(stderr, "example: no token %s\n", argv[i]), 2;
  }
  const int failed = run(w, ids, argc - 3, argv[2]);
  if (failed) fprintf(stderr, "%s\n", plumb_tap_error());
  free(w);
  return failed ? 1 : 0;
}
