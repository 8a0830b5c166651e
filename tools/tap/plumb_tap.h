/* plumb_tap.h: lets an engine in any language write a trace that `plumb diff`, `plumb check` and others read.
 *
 * One C99 header without dependencies. In one source file, before including it:
 *
 *     #define PLUMB_TAP_IMPLEMENTATION
 *     #include "plumb_tap.h"
 *
 *     plumb_tap* t = plumb_tap_begin("theirs.trace", "my engine", "llama", tokens, n_tokens, n_prompt);
 *     plumb_tap_call(t, n);                                        // before each call: the tokens fed in it
 *     plumb_tap_rows(t, "blk.0.attn_q", q, PLUMB_TAP_F32, n, n_head, head_dim);  // [n, n_head, head_dim]
 *     plumb_tap_rows(t, "logits", logits, PLUMB_TAP_F32, n, 0, n_vocab);         // [n, n_vocab]
 *     plumb_tap_last(t, "logits", row, PLUMB_TAP_F32, 0, n_vocab);               // the call's last token alone
 *     if (plumb_tap_end(t) != 0) puts(plumb_tap_error());
 *
 * Rows are contiguous, token by token; n_heads is 0 where there is no axis for heads. Names are those of
 * docs/trace-format.md; what has no such name may bear its own. For Hugging Face's order of q and k say
 * plumb_tap_gauge(t, "qk_halves") once. The folder appears under its name only when plumb_tap_end has written all
 * of it; a name that exists is refused. No function ever ends the program: after a failure the rest do nothing, and
 * plumb_tap_end returns -1. Not for several threads at once.
 */
#ifndef PLUMB_TAP_H
#define PLUMB_TAP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plumb_tap plumb_tap;
enum { PLUMB_TAP_F32 = 0, PLUMB_TAP_F16 = 1, PLUMB_TAP_BF16 = 2, PLUMB_TAP_F64 = 3 };

plumb_tap* plumb_tap_begin(const char* path, const char* engine, const char* arch, const int32_t* tokens,
                           int64_t n_tokens, int64_t n_prompt);
void plumb_tap_call(plumb_tap* t, int64_t n_tokens);
void plumb_tap_gauge(plumb_tap* t, const char* name);
void plumb_tap_rows(plumb_tap* t, const char* value, const void* rows, int type, int64_t n_rows, int64_t n_heads, int64_t dim);
void plumb_tap_last(plumb_tap* t, const char* value, const void* row, int type, int64_t n_heads, int64_t dim);
int plumb_tap_end(plumb_tap* t);         /* 0: the trace is there; frees t in any case */
const char* plumb_tap_error(void);       /* of the last failure */

#ifdef __cplusplus
}
#endif
#endif

#ifdef PLUMB_TAP_IMPLEMENTATION

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PLUMB_TAP_INDEX (1 << 20)           /* bytes of a shard's index */
#define PLUMB_TAP_SHARD (64LL << 20)        /* bytes of data after which the next shard begins */

struct plumb_tap {
  char path[4096], folder[4200];
  char *tokens, *calls, *gauges, *shards;   /* JSON lists, growing */
  char engine[256], arch[64], index[PLUMB_TAP_INDEX];
  int64_t n_prompt, position, call_first, call_tokens, n_records, bytes;
  int step, n_shards, failed;
  size_t index_used;
  FILE *records, *shard;
};

static char plumb_tap_message[512];

const char* plumb_tap_error(void) { return plumb_tap_message; }

static void plumb_tap_fail(plumb_tap* t, const char* what) {
  if (t && t->failed) return;
  snprintf(plumb_tap_message, sizeof plumb_tap_message, "plumb_tap: %s: %s", what, errno ? strerror(errno) : "not possible");
  if (t) t->failed = 1;
}

/* Appends to a list that realloc has made; the first element gets no comma. */
static void plumb_tap_append(plumb_tap* t, char** list, const char* element) {
  const size_t old = *list ? strlen(*list) : 0;
  char* grown = (char*)realloc(*list, old + strlen(element) + 2);
  if (!grown) {
    plumb_tap_fail(t, "memory");
    return;
  }
  grown[old] = 0;
  if (old > 0) strcat(grown + old, ",");
  strcat(grown + old, element);
  *list = grown;
}

/* JSON text: quotes, backslashes and control characters become '_', which no name needs. */
static void plumb_tap_text(char* out, size_t size, const char* in) {
  size_t i = 0;
  for (; in && in[i] && i + 1 < size; ++i) out[i] = (unsigned char)in[i] < 32 || in[i] == '"' || in[i] == '\\' ? '_' : in[i];
  out[i] = 0;
}

static FILE* plumb_tap_open(plumb_tap* t, const char* name) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", t->folder, name);
  FILE* f = fopen(path, "wb");
  if (!f) plumb_tap_fail(t, path);
  return f;
}

plumb_tap* plumb_tap_begin(const char* path, const char* engine, const char* arch, const int32_t* tokens, int64_t n_tokens,
                           int64_t n_prompt) {
  plumb_tap* t = (plumb_tap*)calloc(1, sizeof *t);
  struct stat found;
  errno = 0;
  if (!t) {
    plumb_tap_fail(NULL, "memory");
    return NULL;
  }
  if (strlen(path) >= sizeof t->path) plumb_tap_fail(t, "a path that long");
  snprintf(t->path, sizeof t->path, "%s", path);
  if (!t->failed && lstat(path, &found) == 0) {
    errno = EEXIST;
    plumb_tap_fail(t, path);
  }
  snprintf(t->folder, sizeof t->folder, "%s.XXXXXX", t->path);
  errno = 0;
  if (!t->failed && !mkdtemp(t->folder)) plumb_tap_fail(t, path);
  if (t->failed) t->folder[0] = 0;
  plumb_tap_text(t->engine, sizeof t->engine, engine);
  plumb_tap_text(t->arch, sizeof t->arch, arch);
  for (int64_t i = 0; i < n_tokens && !t->failed; ++i) {
    char id[16];
    snprintf(id, sizeof id, "%d", (int)tokens[i]);
    plumb_tap_append(t, &t->tokens, id);
  }
  t->n_prompt = n_prompt, t->step = -1;
  if (!t->failed) t->records = plumb_tap_open(t, "records.jsonl");
  return t;
}

void plumb_tap_call(plumb_tap* t, int64_t n_tokens) {
  char n[32];
  if (!t || t->failed) return;
  snprintf(n, sizeof n, "%lld", (long long)n_tokens);
  plumb_tap_append(t, &t->calls, n);
  t->call_first = t->position, t->call_tokens = n_tokens;
  t->position += n_tokens, ++t->step;
}

void plumb_tap_gauge(plumb_tap* t, const char* name) {
  char text[128], quoted[132];
  if (!t || t->failed) return;
  plumb_tap_text(text, sizeof text, name);
  snprintf(quoted, sizeof quoted, "\"%s\"", text);
  plumb_tap_append(t, &t->gauges, quoted);
}

static void plumb_tap_close_shard(plumb_tap* t) {
  char entry[128];
  unsigned char length[8];
  if (!t->shard) return;
  t->index[t->index_used++] = '}';
  memset(t->index + t->index_used, ' ', PLUMB_TAP_INDEX - t->index_used);
  for (int i = 0; i < 8; ++i) length[i] = (unsigned char)((uint64_t)PLUMB_TAP_INDEX >> (8 * i));
  errno = 0;
  if (fseek(t->shard, 0, SEEK_SET) != 0 || fwrite(length, 1, 8, t->shard) != 8 ||
      fwrite(t->index, 1, PLUMB_TAP_INDEX, t->shard) != PLUMB_TAP_INDEX || fflush(t->shard) != 0 || fsync(fileno(t->shard)) != 0)
    plumb_tap_fail(t, "a shard");
  if (fclose(t->shard) != 0) plumb_tap_fail(t, "a shard");
  t->shard = NULL;
  snprintf(entry, sizeof entry, "{\"file\":\"values-%05d.safetensors\",\"bytes\":%lld}", t->n_shards,
           (long long)(8 + PLUMB_TAP_INDEX + t->bytes));
  plumb_tap_append(t, &t->shards, entry);
}

static void plumb_tap_write(plumb_tap* t, const char* value, const void* rows, int type, int64_t first, int64_t n_rows, int64_t n_heads,
                            int64_t dim) {
  static const char* const names[] = {"F32", "F16", "BF16", "F64"};
  static const int sizes[] = {4, 2, 2, 8};
  char name[256], shape[96], key[400], entry[800];
  if (!t || t->failed) return;
  errno = 0;
  if (t->step < 0 || type < 0 || type > 3 || n_rows < 1 || dim < 1 || n_heads < 0) {
    plumb_tap_fail(t, t->step < 0 ? "plumb_tap_call must come first" : "a shape or type");
    return;
  }
  plumb_tap_text(name, sizeof name, value);
  if (n_heads > 0)
    snprintf(shape, sizeof shape, "[%lld,%lld,%lld]", (long long)n_rows, (long long)n_heads, (long long)dim);
  else
    snprintf(shape, sizeof shape, "[%lld,%lld]", (long long)n_rows, (long long)dim);
  snprintf(key, sizeof key, "%s@%lld#%lld", name, (long long)first, (long long)t->n_records);
  const int64_t bytes = n_rows * (n_heads > 0 ? n_heads : 1) * dim * sizes[type];
  if (t->shard && (t->bytes + bytes > PLUMB_TAP_SHARD || t->index_used + sizeof entry > PLUMB_TAP_INDEX)) plumb_tap_close_shard(t);
  if (!t->shard && !t->failed) {
    char file[64];
    snprintf(file, sizeof file, "values-%05d.safetensors", ++t->n_shards);
    t->shard = plumb_tap_open(t, file);
    t->bytes = 0, t->index_used = 1, t->index[0] = '{';
    if (t->shard && fseek(t->shard, 8 + PLUMB_TAP_INDEX, SEEK_SET) != 0) plumb_tap_fail(t, file);
  }
  if (t->failed) return;
  const int n = snprintf(entry, sizeof entry, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%lld,%lld]}",
                         t->index_used > 1 ? "," : "", key, names[type], shape, (long long)t->bytes, (long long)(t->bytes + bytes));
  memcpy(t->index + t->index_used, entry, (size_t)n);
  t->index_used += (size_t)n, t->bytes += bytes;
  if (fwrite(rows, 1, (size_t)bytes, t->shard) != (size_t)bytes) plumb_tap_fail(t, "a shard");
  if (fprintf(t->records,
              "{\"value\":\"%s\",\"step\":%d,\"tokens\":[%lld,%lld],\"shape\":%s,\"type\":\"%s\",\"shard\":%d,\"tensor\":\"%s\"}\n", name,
              t->step, (long long)first, (long long)n_rows, shape, names[type], t->n_shards, key) < 0)
    plumb_tap_fail(t, "records.jsonl");
  ++t->n_records;
}

void plumb_tap_rows(plumb_tap* t, const char* value, const void* rows, int type, int64_t n_rows, int64_t n_heads, int64_t dim) {
  if (t) plumb_tap_write(t, value, rows, type, t->call_first, n_rows, n_heads, dim);
}

void plumb_tap_last(plumb_tap* t, const char* value, const void* row, int type, int64_t n_heads, int64_t dim) {
  if (t) plumb_tap_write(t, value, row, type, t->call_first + t->call_tokens - 1, 1, n_heads, dim);
}

static void plumb_tap_remove(plumb_tap* t) {
  char path[4400];
  for (int i = 1; i <= t->n_shards; ++i) {
    snprintf(path, sizeof path, "%s/values-%05d.safetensors", t->folder, i);
    unlink(path);
  }
  snprintf(path, sizeof path, "%s/records.jsonl", t->folder), unlink(path);
  snprintf(path, sizeof path, "%s/trace.json", t->folder), unlink(path);
  rmdir(t->folder);
}

int plumb_tap_end(plumb_tap* t) {
  if (!t) return -1;
  plumb_tap_close_shard(t);
  if (t->records) {
    if (fflush(t->records) != 0 || fsync(fileno(t->records)) != 0) plumb_tap_fail(t, "records.jsonl");
    fclose(t->records);
  }
  FILE* f = t->failed ? NULL : plumb_tap_open(t, "trace.json");
  if (f) {
    fprintf(f,
            "{\"plumb_trace\":1,\"engine\":{\"name\":\"%s\"},\"model\":{\"arch\":\"%s\"},\"input\":{\"tokens\":[%s],\"prompt\":%lld,"
            "\"calls\":[%s]},\"level\":\"full\",\"gauges\":[%s],\"records\":%lld,\"shards\":[%s]}\n",
            t->engine, t->arch, t->tokens ? t->tokens : "", (long long)t->n_prompt, t->calls ? t->calls : "",
            t->gauges ? t->gauges : "", (long long)t->n_records, t->shards ? t->shards : "");
    if (fflush(f) != 0 || fsync(fileno(f)) != 0) plumb_tap_fail(t, "trace.json");
    fclose(f);
    chmod(t->folder, 0755);
    if (!t->failed && rename(t->folder, t->path) != 0) plumb_tap_fail(t, t->path);
  }
  const int result = t->failed ? -1 : 0;
  if (result != 0 && t->folder[0]) plumb_tap_remove(t);
  free(t->tokens), free(t->calls), free(t->gauges), free(t->shards), free(t);
  return result;
}

#endif /* PLUMB_TAP_IMPLEMENTATION */
