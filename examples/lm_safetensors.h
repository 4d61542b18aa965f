/* lm_safetensors.h - files in memory, and the tensors of a safetensors file
 *
 * The format: 8 bytes of little-endian header length N, N bytes of JSON {"name": {"dtype": "BF16", "shape": [..],
 * "data_offsets": [begin, end]}, ..}, then the data, which the tensors cover without gap or overlap. Nothing is
 * copied: tensors point into the file's mapping, with any alignment. Nothing here prints or exits. */
#ifndef LM_SAFETENSORS_H
#define LM_SAFETENSORS_H

#include "lm_json.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(__unix__) || defined(__APPLE__)
#define LM_HAVE_MMAP 1
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#define LM_HAVE_MMAP 0
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the weights are little-endian and used in place: this example needs a little-endian machine"
#endif

enum { LM_MAX_RANK = 8, LM_ERROR_SIZE = 512 };
#define LM_MAX_HEADER ((uint64_t)100000000)     /* the limit of the format's own library */
#define LM_MAX_STREAM ((size_t)1 << 30)         /* most bytes read from what cannot be mapped by size, such as a pipe */

#if defined(__GNUC__)
#define LM_PRINTF(string, first) __attribute__((format(printf, string, first)))
#else
#define LM_PRINTF(string, first)
#endif

/* Names in messages come from files: control characters become '?', so that a message stays one line. */
static inline char *lm_printable(char *text) {
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F) *c = '?';
    return text;
}

/* Writes a message into error[LM_ERROR_SIZE] and returns it. */
static inline const char *lm_error(char *error, const char *format, ...) LM_PRINTF(2, 3);
static inline const char *lm_error(char *error, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(error, LM_ERROR_SIZE, format, args);
    va_end(args);
    return lm_printable(error);
}

/* ---- a file in memory ------------------------------------------------------------------------------------------ */

typedef struct { unsigned char *data; size_t size; bool mapped; } lm_file;

static inline void lm_file_close(lm_file *f) {
#if LM_HAVE_MMAP
    if (f->mapped) munmap(f->data, f->size);
#endif
    if (!f->mapped) free(f->data);
    *f = (lm_file){ 0 };
}

/* Reads until the end; for systems without mmap, and for pipes. */
static inline const char *lm_file_read(lm_file *f, const char *path) {
    FILE *in = fopen(path, "rb");
    if (!in) return strerror(errno);
    size_t cap = 0;
    const char *error = NULL;
    do {
        if (f->size == cap) {
            cap = cap ? cap * 2 : 65536;
            unsigned char *data = cap <= LM_MAX_STREAM ? realloc(f->data, cap) : NULL;
            if (!data) { error = "too large to be read into memory"; break; }
            f->data = data;
        }
        f->size += fread(f->data + f->size, 1, cap - f->size, in);
    } while (!feof(in) && !ferror(in));
    if (!error && ferror(in)) error = strerror(errno);
    fclose(in);
    if (error) lm_file_close(f);
    return error;
}

/* Makes the content of a file readable at f->data. NULL, or what is wrong (valid until the next call). */
static inline const char *lm_file_open(lm_file *f, const char *path) {
    *f = (lm_file){ 0 };
#if LM_HAVE_MMAP
    const int fd = open(path, O_RDONLY);
    if (fd < 0) return strerror(errno);
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0) {
        if ((uintmax_t)st.st_size > SIZE_MAX / 2) { close(fd); return "too large for the address space"; }
        void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data != MAP_FAILED) *f = (lm_file){ .data = data, .size = (size_t)st.st_size, .mapped = true };
    }
    close(fd);
    if (f->mapped) return NULL;
#endif
    return lm_file_read(f, path);
}

/* ---- the tensors of one file ----------------------------------------------------------------------------------- */

typedef enum { LM_BF16, LM_F16, LM_F32, LM_I32, LM_OTHER } lm_dtype;     /* LM_OTHER: valid, of no use here */

typedef struct {
    const char *name;
    lm_dtype dtype;
    int32_t rank;
    int64_t shape[LM_MAX_RANK];
    const unsigned char *data;      /* row-major, little-endian, possibly unaligned */
    size_t bytes;
    bool used;                      /* set by who takes it */
} lm_tensor;

typedef struct {
    lm_tensor *tensors;             /* sorted by name */
    int32_t n;
    char *names;
    char error[LM_ERROR_SIZE];
} lm_st;

/* The type of a dtype string and the bytes of its elements, 0 for an unknown one. */
static inline size_t lm_dtype_size(const lm_json *j, int32_t node, lm_dtype *dtype) {
    static const struct { const char *name; size_t size; lm_dtype dtype; } known[] = {
        { "BF16", 2, LM_BF16 }, { "F16", 2, LM_F16 }, { "F32", 4, LM_F32 }, { "I32", 4, LM_I32 },
        { "BOOL", 1, LM_OTHER }, { "U8", 1, LM_OTHER }, { "I8", 1, LM_OTHER }, { "F8_E4M3", 1, LM_OTHER },
        { "F8_E5M2", 1, LM_OTHER }, { "U16", 2, LM_OTHER }, { "I16", 2, LM_OTHER }, { "U32", 4, LM_OTHER },
        { "U64", 8, LM_OTHER }, { "I64", 8, LM_OTHER }, { "F64", 8, LM_OTHER },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (lm_json_equals(j, node, known[i].name)) { *dtype = known[i].dtype; return known[i].size; }
    return 0;
}

static inline int lm_tensor_by_data(const void *a, const void *b) {
    const lm_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static inline int lm_tensor_by_name(const void *a, const void *b) {
    return strcmp(((const lm_tensor *)a)->name, ((const lm_tensor *)b)->name);
}

/* One entry of the header into *t. data: the size bytes after the header. */
static inline const char *lm_st_entry(lm_st *st, const lm_json *j, int32_t node, const unsigned char *data, size_t size,
                                      lm_tensor *t) {
    const int32_t shape = lm_json_get(j, node, "shape"), offsets = lm_json_get(j, node, "data_offsets");
    const size_t element = lm_dtype_size(j, lm_json_get(j, node, "dtype"), &t->dtype);
    if (element == 0) return lm_error(st->error, "tensor %.100s has a missing or unknown dtype", t->name);
    if (!lm_json_is(j, shape, LM_JSON_ARRAY)) return lm_error(st->error, "tensor %.100s has no shape", t->name);
    uint64_t bytes = element;
    for (int32_t i = shape + 1; i < j->nodes[shape].end; i = j->nodes[i].end) {
        int64_t dim;
        if (t->rank == LM_MAX_RANK) return lm_error(st->error, "tensor %.100s has too many dimensions", t->name);
        if (!lm_json_int(j, i, &dim) || dim < 0)
            return lm_error(st->error, "tensor %.100s has a shape that is not made of whole numbers", t->name);
        if (dim > 0 && bytes > (uint64_t)INT64_MAX / (uint64_t)dim)
            return lm_error(st->error, "tensor %.100s has a shape too large to exist", t->name);
        bytes *= (uint64_t)dim;
        t->shape[t->rank++] = dim;
    }
    int64_t begin = -1, end = -1;
    if (!lm_json_is(j, offsets, LM_JSON_ARRAY) || j->nodes[offsets].end != offsets + 3 ||
        !lm_json_int(j, offsets + 1, &begin) || !lm_json_int(j, offsets + 2, &end) || begin < 0 || begin > end)
        return lm_error(st->error, "tensor %.100s has no valid data_offsets", t->name);
    if ((uint64_t)end > size)
        return lm_error(st->error, "tensor %.100s ends at byte %lld of %llu: the file is truncated or damaged", t->name,
                        (long long)end, (unsigned long long)size);
    if ((uint64_t)(end - begin) != bytes)
        return lm_error(st->error, "tensor %.100s has %lld bytes of data where its shape needs %llu", t->name,
                        (long long)(end - begin), (unsigned long long)bytes);
    t->data = data + begin;
    t->bytes = (size_t)bytes;
    return NULL;
}

static inline const char *lm_st_entries(lm_st *st, const lm_json *j, const unsigned char *data, size_t size,
                                        char *name) {
    for (int32_t i = 1; i < j->n; i = j->nodes[i + 1].end) {
        if (lm_json_equals(j, i, "__metadata__")) continue;
        if (!lm_json_string(j, i, name, j->nodes[i].len + 1))
            return lm_error(st->error, "a tensor's name holds a zero");
        lm_tensor *t = &st->tensors[st->n++];
        *t = (lm_tensor){ .name = name };
        name += strlen(name) + 1;
        const char *error = lm_st_entry(st, j, i + 1, data, size, t);
        if (error) return error;
    }
    qsort(st->tensors, (size_t)st->n, sizeof *st->tensors, lm_tensor_by_data);
    size_t covered = 0;
    for (int32_t i = 0; i < st->n; covered += st->tensors[i++].bytes)
        if (st->tensors[i].data != data + covered)
            return lm_error(st->error, "the data of tensor %.100s overlaps another's, or leaves a gap",
                            st->tensors[i].name);
    if (covered != size) return lm_error(st->error, "bytes after the last tensor");
    qsort(st->tensors, (size_t)st->n, sizeof *st->tensors, lm_tensor_by_name);
    for (int32_t i = 1; i < st->n; i++)
        if (strcmp(st->tensors[i - 1].name, st->tensors[i].name) == 0)
            return lm_error(st->error, "tensor %.100s occurs twice", st->tensors[i].name);
    return NULL;
}

static inline void lm_st_free(lm_st *st) {
    free(st->tensors);
    free(st->names);
    st->tensors = NULL;
    st->names = NULL;
    st->n = 0;
}

/* Reads the n bytes at buf, which must stay. NULL when all is well, else what is wrong (in st->error; nothing left
 * to free). */
static inline const char *lm_st_parse(lm_st *st, const void *buf, size_t n) {
    *st = (lm_st){ 0 };
    const unsigned char *bytes = buf;
    uint64_t header = 0;
    if (n < 8) return lm_error(st->error, "too short for a safetensors file");
    for (int i = 7; i >= 0; i--) header = header << 8 | bytes[i];
    if (header > LM_MAX_HEADER) return lm_error(st->error, "not a safetensors file: its header would have %llu bytes",
                                                (unsigned long long)header);
    if (header > n - 8) return lm_error(st->error, "truncated: a header of %llu bytes in a file of %llu",
                                        (unsigned long long)header, (unsigned long long)n);
    lm_json json;
    const char *error = lm_json_parse(&json, (const char *)bytes + 8, (size_t)header);
    if (error) return lm_error(st->error, "header: %s", error);
    if (!lm_json_is(&json, 0, LM_JSON_OBJECT)) error = lm_error(st->error, "header: not a JSON object");
    else {
        /* at most a tensor for two nodes; a decoded name and its zero take no more bytes than the quoted text */
        st->tensors = malloc(((size_t)json.n / 2 + 1) * sizeof *st->tensors);
        st->names = malloc((size_t)header + 1);
        if (!st->tensors || !st->names) error = lm_error(st->error, "out of memory");
        else error = lm_st_entries(st, &json, bytes + 8 + header, n - 8 - (size_t)header, st->names);
    }
    lm_json_free(&json);
    if (error) lm_st_free(st);
    return error;
}

/* The tensor of that name, NULL when there is none. */
static inline lm_tensor *lm_st_find(const lm_st *st, const char *name) {
    const lm_tensor key = { .name = name };
    return st->n ? bsearch(&key, st->tensors, (size_t)st->n, sizeof key, lm_tensor_by_name) : NULL;
}

#endif /* LM_SAFETENSORS_H */
