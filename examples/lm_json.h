/* lm_json.h - a strict JSON reader over a buffer, for config.json and the headers of safetensors files
 *
 * lm_json_parse() turns a text into a flat array of nodes in the order of the text: a container is followed by its
 * children, and nodes[i].end is the index of the first node after node i and everything inside it. An object's
 * children are key, value, key, value. Nodes point into the text, which must stay. Depth and number of nodes are
 * limited, so that a hostile text costs bounded stack and memory. Nothing here prints or exits. */
#ifndef LM_JSON_H
#define LM_JSON_H

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LM_JSON_MAX_DEPTH = 32, LM_JSON_MAX_NODES = 1 << 22 };

typedef enum {
    LM_JSON_NULL, LM_JSON_FALSE, LM_JSON_TRUE, LM_JSON_NUMBER, LM_JSON_STRING, LM_JSON_ARRAY, LM_JSON_OBJECT
} lm_json_type;

typedef struct {
    lm_json_type type;
    int32_t end;                    /* index of the next node that is not inside this one */
    size_t start, len;              /* the value's text; a string without its quotes, still escaped */
} lm_json_node;

typedef struct {
    const char *text;
    lm_json_node *nodes;            /* nodes[0] is the whole text's value */
    int32_t n, cap;
} lm_json;

/* The parser's position. error is NULL as long as all is well; functions return at once when it is set. */
typedef struct { lm_json *json; const char *text; size_t n, at; const char *error; } lm_json_reader;

static inline int lm_json_peek(const lm_json_reader *r) { return r->at < r->n ? (unsigned char)r->text[r->at] : -1; }

static inline void lm_json_space(lm_json_reader *r) {
    while (r->at < r->n && memchr(" \t\r\n", r->text[r->at], 4)) r->at++;
}

/* Adds a node and returns its index, -1 with r->error set when there are too many. */
static inline int32_t lm_json_add(lm_json_reader *r, lm_json_type type) {
    lm_json *j = r->json;
    if (j->n == j->cap) {
        const int32_t cap = j->cap ? j->cap * 2 : 64;
        if (cap > LM_JSON_MAX_NODES) { r->error = "JSON with too many values"; return -1; }
        lm_json_node *nodes = realloc(j->nodes, (size_t)cap * sizeof *nodes);
        if (!nodes) { r->error = "out of memory"; return -1; }
        j->nodes = nodes;
        j->cap = cap;
    }
    j->nodes[j->n] = (lm_json_node){ .type = type, .start = r->at };
    return j->n++;
}

static inline int lm_json_hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Four hexadecimal digits at s, -1 if they are not. */
static inline int32_t lm_json_hex4(const char *s) {
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        const int digit = lm_json_hex(s[i]);
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static inline void lm_json_read_string(lm_json_reader *r) {
    r->at++;                        /* the opening quote */
    const int32_t node = lm_json_add(r, LM_JSON_STRING);
    if (node < 0) return;
    while (lm_json_peek(r) != '"') {
        const int c = lm_json_peek(r);
        if (c < 0) { r->error = "JSON ends inside a string"; return; }
        if (c < 0x20) { r->error = "JSON with a control character inside a string"; return; }
        r->at++;
        if (c != '\\') continue;
        const int escape = lm_json_peek(r);
        if (escape == 'u' && r->n - r->at > 4 && lm_json_hex4(r->text + r->at + 1) >= 0) r->at += 5;
        else if (escape > 0 && strchr("\"\\/bfnrt", escape)) r->at++;
        else { r->error = "JSON with a wrong escape inside a string"; return; }
    }
    r->json->nodes[node].len = r->at - r->json->nodes[node].start;
    r->at++;
}

static inline bool lm_json_digits(lm_json_reader *r) {
    const size_t from = r->at;
    while (lm_json_peek(r) >= '0' && lm_json_peek(r) <= '9') r->at++;
    return r->at > from;
}

static inline void lm_json_read_number(lm_json_reader *r) {
    const int32_t node = lm_json_add(r, LM_JSON_NUMBER);
    if (node < 0) return;
    bool ok = true;
    if (lm_json_peek(r) == '-') r->at++;
    if (lm_json_peek(r) == '0') r->at++;        /* no further digit may follow a leading 0 */
    else ok = lm_json_digits(r);
    if (ok && lm_json_peek(r) == '.') { r->at++; ok = lm_json_digits(r); }
    if (ok && (lm_json_peek(r) == 'e' || lm_json_peek(r) == 'E')) {
        r->at++;
        if (lm_json_peek(r) == '+' || lm_json_peek(r) == '-') r->at++;
        ok = lm_json_digits(r);
    }
    if (!ok) r->error = "JSON with a malformed number";
    r->json->nodes[node].len = r->at - r->json->nodes[node].start;
}

static inline void lm_json_read_word(lm_json_reader *r, const char *word, lm_json_type type) {
    const size_t len = strlen(word);
    if (r->n - r->at < len || memcmp(r->text + r->at, word, len) != 0) {
        r->error = "JSON with an unknown word";
        return;
    }
    const int32_t node = lm_json_add(r, type);
    if (node < 0) return;
    r->json->nodes[node].len = len;
    r->at += len;
}

static inline void lm_json_read_value(lm_json_reader *r, int depth) {
    lm_json_space(r);
    const int c = lm_json_peek(r);
    const int32_t node = r->json->n;            /* whatever is read next becomes this node */
    if (c == '{' || c == '[') {
        const int close = c == '{' ? '}' : ']';
        if (depth >= LM_JSON_MAX_DEPTH) { r->error = "JSON nested too deeply"; return; }
        if (lm_json_add(r, c == '{' ? LM_JSON_OBJECT : LM_JSON_ARRAY) < 0) return;
        r->at++;
        lm_json_space(r);
        bool first = true;
        while (lm_json_peek(r) != close) {
            if (!first) {
                if (lm_json_peek(r) != ',') {
                    r->error = r->at < r->n ? "JSON with a missing comma or bracket"
                                            : "JSON ends inside a list or object";
                    return;
                }
                r->at++;
                lm_json_space(r);
            }
            first = false;
            if (c == '{') {
                if (lm_json_peek(r) != '"') { r->error = "JSON with a key that is not a string"; return; }
                const int32_t key = r->json->n;
                lm_json_read_string(r);
                if (r->error) return;
                r->json->nodes[key].end = key + 1;
                lm_json_space(r);
                if (lm_json_peek(r) != ':') { r->error = "JSON with a key that has no value"; return; }
                r->at++;
            }
            lm_json_read_value(r, depth + 1);
            if (r->error) return;
            lm_json_space(r);
        }
        r->at++;
        r->json->nodes[node].len = r->at - r->json->nodes[node].start;
    }
    else if (c == '"') lm_json_read_string(r);
    else if (c == '-' || (c >= '0' && c <= '9')) lm_json_read_number(r);
    else if (c == 't') lm_json_read_word(r, "true", LM_JSON_TRUE);
    else if (c == 'f') lm_json_read_word(r, "false", LM_JSON_FALSE);
    else if (c == 'n') lm_json_read_word(r, "null", LM_JSON_NULL);
    else r->error = c < 0 ? "JSON ends where a value is expected" : "JSON with an unexpected character";
    if (!r->error) r->json->nodes[node].end = r->json->n;
}

static inline void lm_json_free(lm_json *j) {
    free(j->nodes);
    *j = (lm_json){ 0 };
}

/* Parses the n bytes at text, which need no terminating zero. NULL when all is well, else what is wrong (a
 * constant; nothing is left to free then). */
static inline const char *lm_json_parse(lm_json *j, const char *text, size_t n) {
    *j = (lm_json){ .text = text };
    lm_json_reader r = { .json = j, .text = text, .n = n };
    lm_json_read_value(&r, 0);
    lm_json_space(&r);
    if (!r.error && r.at < n) r.error = "JSON followed by something else";
    if (r.error) lm_json_free(j);
    return r.error;
}

/* ---- reading values: node indices, -1 = absent ----------------------------------------------------------------- */

static inline bool lm_json_is(const lm_json *j, int32_t node, lm_json_type type) {
    return node >= 0 && j->nodes[node].type == type;
}

/* Appends a code point in UTF-8. The caller leaves room for 4 bytes. */
static inline size_t lm_json_utf8(char *out, uint32_t c) {
    if (c < 0x80) { out[0] = (char)c; return 1; }
    if (c < 0x800) { out[0] = (char)(0xC0 | c >> 6); out[1] = (char)(0x80 | (c & 63)); return 2; }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12); out[1] = (char)(0x80 | (c >> 6 & 63)); out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18); out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63)); out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Copies a string, its escapes decoded, and a terminating zero to out (cap bytes; an escape never grows, so len +
 * 1 bytes are always enough). False when the node is no string, does not fit, or holds a zero character. */
static inline bool lm_json_string(const lm_json *j, int32_t node, char *out, size_t cap) {
    if (!lm_json_is(j, node, LM_JSON_STRING) || j->nodes[node].len >= cap) return false;
    const char *s = j->text + j->nodes[node].start, *end = s + j->nodes[node].len;
    static const char codes[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    while (s < end) {
        if (*s != '\\') { *out++ = *s++; continue; }
        if (s[1] != 'u') { *out++ = values[strchr(codes, s[1]) - codes]; s += 2; continue; }
        uint32_t c = (uint32_t)lm_json_hex4(s + 2);
        s += 6;
        if (c >= 0xD800 && c < 0xDC00 && end - s >= 6 && s[0] == '\\' && s[1] == 'u') {     /* a surrogate pair */
            const int32_t low = lm_json_hex4(s + 2);
            if (low >= 0xDC00 && low < 0xE000) {
                c = 0x10000 + ((c - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
                s += 6;
            }
        }
        if (c == 0) return false;
        out += lm_json_utf8(out, c);
    }
    *out = 0;
    return true;
}

static inline bool lm_json_equals(const lm_json *j, int32_t node, const char *text) {
    char decoded[256];
    return lm_json_string(j, node, decoded, sizeof decoded) && strcmp(decoded, text) == 0;
}

/* The value of a key of an object, -1 when node is no object or has no such key. The first wins. */
static inline int32_t lm_json_get(const lm_json *j, int32_t node, const char *key) {
    if (!lm_json_is(j, node, LM_JSON_OBJECT)) return -1;
    for (int32_t i = node + 1; i < j->nodes[node].end; i = j->nodes[i + 1].end)
        if (lm_json_equals(j, i, key)) return i + 1;
    return -1;
}

/* A whole number without fraction or exponent that fits in 64 bits. */
static inline bool lm_json_int(const lm_json *j, int32_t node, int64_t *value) {
    char text[24];
    if (!lm_json_is(j, node, LM_JSON_NUMBER) || j->nodes[node].len >= sizeof text) return false;
    memcpy(text, j->text + j->nodes[node].start, j->nodes[node].len);
    text[j->nodes[node].len] = 0;
    char *end;
    errno = 0;
    const long long parsed = strtoll(text, &end, 10);
    if (*end || errno) return false;
    *value = parsed;
    return true;
}

/* Any finite number. */
static inline bool lm_json_double(const lm_json *j, int32_t node, double *value) {
    char text[64];
    if (!lm_json_is(j, node, LM_JSON_NUMBER) || j->nodes[node].len >= sizeof text) return false;
    memcpy(text, j->text + j->nodes[node].start, j->nodes[node].len);
    text[j->nodes[node].len] = 0;
    const double parsed = strtod(text, NULL);
    if (!(fabs(parsed) <= 1e300)) return false;
    *value = parsed;
    return true;
}

#endif /* LM_JSON_H */
