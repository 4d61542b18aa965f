/* files.c - fuzz target: the readers of the examples. Any bytes as JSON, and as a safetensors file.
 *
 * The input: a byte that says which of the two, one that says how much data follows a header whose length is made
 * right, then the file. */
#include "../../examples/lm_safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(int ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* Every node of a text that was taken, by every way to read a node. */
static void read_nodes(const lm_json *j, size_t n)
{
    need(j->n >= 1 && j->nodes[0].end == j->n, "the first node holds all others");
    for (int32_t i = 0; i < j->n; i++) {
        const lm_json_node *node = &j->nodes[i];
        int64_t whole = 0;
        double real = 0;
        need(node->start <= n && node->len <= n - node->start && node->end > i && node->end <= j->n,
             "a node stays in its text and its array");
        char *text = malloc(node->len + 1);
        need(text != NULL, "out of memory");
        if (lm_json_string(j, i, text, node->len + 1)) {
            need(strlen(text) <= node->len, "a decoded string is not longer");
            need(!lm_json_string(j, i, text, node->len), "one byte less does not do");
        }
        free(text);
        need(!lm_json_int(j, i, &whole) || node->type == LM_JSON_NUMBER, "only numbers are whole numbers");
        if (lm_json_double(j, i, &real)) need(real >= -1e300 && real <= 1e300, "a number is finite");
        int32_t found = lm_json_get(j, i, "a");
        need(found == -1 || (found > i && found < node->end), "a value lies in its object");
        (void)lm_json_equals(j, i, "BF16");
    }
    need(lm_json_get(j, -1, "a") == -1 && !lm_json_is(j, -1, LM_JSON_NULL), "what is absent has nothing");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const int as_json = data[0] & 1, honest = data[0] & 2;
    const size_t tail = data[1], n = size - 2 + (as_json || !honest ? 0 : 8);
    unsigned char *bytes = malloc(n + !n);                   /* exactly the file: a byte past it is seen */
    need(bytes != NULL, "out of memory");
    memcpy(bytes + n - (size - 2), data + 2, size - 2);
    if (!as_json && honest) {                                /* the header's length is right: all but the tail */
        uint64_t header = size - 2 > tail ? size - 2 - tail : 0;
        for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(header >> 8 * i);
    }
    lm_json j;
    static lm_st st;
    if (as_json) {
        if (lm_json_parse(&j, (const char *)bytes, n) == NULL) {
            read_nodes(&j, n);
            lm_json_free(&j);
        } else need(j.nodes == NULL, "a refused text leaves nothing to free");
    } else if (lm_st_parse(&st, bytes, n) == NULL) {
        size_t total = 0;
        unsigned sum = 0;
        for (int32_t i = 0; i < st.n; i++) {
            const lm_tensor *t = &st.tensors[i];
            uint64_t elements = 1;
            for (int32_t d = 0; d < t->rank; d++) elements *= (uint64_t)t->shape[d];
            need(elements ? t->bytes % elements == 0 : t->bytes == 0, "the bytes of a tensor are those of its shape");
            for (size_t b = 0; b < t->bytes; b++) sum += t->data[b];
            total += t->bytes;
            need(lm_st_find(&st, t->name) == t, "a tensor is found by its name");
        }
        need(total <= n && sum <= 255 * total, "the tensors lie in the file");
        (void)lm_st_find(&st, "");
        lm_st_free(&st);
    } else {
        need(st.tensors == NULL && st.names == NULL && st.error[0], "a refused file says why and leaves nothing");
        for (const char *c = st.error; *c; c++) need((unsigned char)*c >= 0x20 && *c != 0x7F, "a message is one line");
    }
    free(bytes);
    return 0;
}
