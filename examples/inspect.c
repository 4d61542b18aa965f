/* inspect - how the attention of an SSA model spreads, and what block selection drops of it
 *
 *   cc -O3 -fopenmp examples/inspect.c -o inspect -lm
 *   ./inspect                                      # 512 bytes of the model's held-out text
 *   ./inspect -k 8 -o blocks.svg "some text of your own, longer than 8 blocks of 16 bytes .."
 *
 * Runs a byte model over a text, sparsely. At every layer it also attends fully to the same queries and asks
 * ssa_diagnose about them: entropy of full attention, its share inside the selected blocks, and the paper's bound on
 * the distance between both outputs, beside that distance. Draws which blocks the queries choose. */
#define SSA_IMPLEMENTATION
#include "../ssa.h"

#include "lm_run.h"

enum { IN_TOKENS = 512, IN_LINES = 16, IN_COLUMNS = 64, IN_ROWS = 64, IN_CELL = 6, IN_ACROSS = 4, IN_CHUNK = 256 };

static const char in_usage[] =
    "usage: inspect [options] [TEXT]\n"
    "\n"
    "  -d DIR     the model, of bytes (examples/tiny-ssa); without TEXT: its heldout-text.bin\n"
    "  -n N       bytes of the text at most (512)\n"
    "  -k N       blocks a query attends to (the model's block_counts)\n"
    "  -t         select the exact top k (default: as the released checkpoints were trained)\n"
    "  -p         each head selects for itself (default: the heads of a group together)\n"
    "  -o FILE    write an SVG of the chosen blocks\n";

/* Sums over the queries of a head. */
typedef struct { double entropy, sparsity, delta, apart, bound, most, closest; } in_sums;

typedef struct {
    const lm_config *config;
    int64_t n, blocks;              /* tokens, blocks of keys */
    int32_t lists, top_k;           /* of a query; slots of each */
    bool per_head;
    in_sums *sums;                  /* [layers][heads] */
    uint16_t *chosen;               /* [layers][n][blocks]: how many of the query's lists hold the block */
    float *full, *sparse;           /* [chunk][heads][head_dim]: both outputs, without gate */
    float *measured;                /* [4][chunk][heads] */
    int32_t *list;                  /* [chunk][lists][top_k] */
    bool broken;                    /* some distance is above its bound */
} in_state;

/* One layer of some queries: both outputs, their diagnosis, and what to keep of it. */
static const char *in_layer(void *user, int32_t layer, const ssa_attn *call) {
    in_state *s = user;
    const lm_config *c = s->config;
    ssa_attn a = *call;
    const int64_t rows = a.n_q * c->heads;
    const ssa_diagnosis d = { s->measured, s->measured + rows, s->measured + 2 * rows, s->measured + 3 * rows };
    a.gate = NULL;
    a.select_per_head = s->per_head;
    a.out.data = s->full;
    ssa_status status = ssa_attention(&a, SSA_FULL, NULL);
    a.out.data = s->sparse;
    a.blocks = s->list;
    if (status == SSA_OK) status = ssa_attention(&a, SSA_SPARSE, NULL);
    if (status == SSA_OK) status = ssa_diagnose(&a, &d, NULL);
    if (status != SSA_OK) return ssa_status_string(status);
    for (int64_t r = 0; r < rows; r++) {
        in_sums *sum = &s->sums[layer * c->heads + r % c->heads];
        double apart = 0, bound = (double)d.bound[r];
        for (int64_t e = r * c->head_dim; e < (r + 1) * c->head_dim; e++) {
            const double x = (double)s->full[e] - (double)s->sparse[e];
            apart += x * x;
        }
        apart = sqrt(apart);
        sum->entropy += (double)d.entropy[r];
        sum->sparsity += (double)d.sparsity[r];
        sum->delta += (double)d.delta[r];
        sum->apart += apart;
        sum->bound += bound;
        if (apart > sum->most) sum->most = apart;
        if (bound > 1e-3 && apart / bound > sum->closest) sum->closest = apart / bound;
        if (!(apart <= bound * (1 + 1e-5) + 1e-4)) s->broken = true;       /* 1e-4: both outputs were rounded */
    }
    for (int64_t i = 0; i < a.n_q; i++)
        for (int64_t e = i * s->lists * s->top_k; e < (i + 1) * s->lists * s->top_k; e++)
            if (s->list[e] >= 0) s->chosen[(layer * s->n + a.q_pos + i) * s->blocks + s->list[e]]++;
    return NULL;
}

/* How often, 0 .. 1, the lists of queries from .. to-1 hold blocks first .. last-1; -1 where none is visible. */
static double in_shade(const in_state *s, int32_t layer, int64_t from, int64_t to, int64_t first, int64_t last) {
    const int64_t size = s->config->block_size;
    int64_t held = 0, seen = 0;
    for (int64_t i = from; i < to && i < s->n; i++)
        for (int64_t b = first; b < last && b <= i / size; b++) {
            held += s->chosen[(layer * s->n + i) * s->blocks + b];
            seen += s->lists;
        }
    return seen ? (double)held / (double)seen : -1;
}

static void in_table(const in_state *s) {
    const lm_config *c = s->config;
    const double n = (double)s->n;
    printf("%lld tokens, blocks of %d, %d a query%s; |f-s|: between full and sparse output, before the gate\n\n",
           (long long)s->n, c->block_size, s->top_k, s->per_head ? " and head" : "");
    printf("layer head  entropy  sparsity     delta | |f-s| mean    largest  bound, mean  nearest to its bound\n");
    for (int32_t layer = 0; layer < c->layers; layer++)
        for (int32_t h = 0; h < c->heads; h++) {
            const in_sums *x = &s->sums[layer * c->heads + h];
            printf("%5d %4d  %7.3f  %8.5f  %8.6f | %10.6f %10.6f   %10.6f  %15.1f%%\n", layer, h, x->entropy / n,
                   x->sparsity / n, x->delta / n, x->apart / n, x->most, x->bound / n, 100 * x->closest);
        }
    printf("\n%s\n", s->broken ? "SOME DISTANCE IS ABOVE ITS BOUND" : "Every |f-s| is within the bound of Theorem 1.");
}

static void in_map(const in_state *s) {
    static const char shades[] = ".:-=+*%#@";
    const int64_t step = (s->n + IN_LINES - 1) / IN_LINES, wide = (s->blocks + IN_COLUMNS - 1) / IN_COLUMNS;
    printf("\nWhich blocks are chosen: a line for %lld queries, a column for %lld block%s, from . never to @ always\n",
           (long long)step, (long long)wide, wide > 1 ? "s" : "");
    for (int32_t layer = 0; layer < s->config->layers; layer++) {
        printf("\n  layer %d\n", layer);
        for (int64_t i = 0; i < s->n; i += step) {
            printf("  %6lld  ", (long long)i);
            for (int64_t b = 0; b < s->blocks; b += wide) {
                const double x = in_shade(s, layer, i, i + step, b, b + wide);
                putchar(x < 0 ? ' ' : shades[(int)(x * (sizeof shades - 2) + 0.5)]);
            }
            putchar('\n');
        }
    }
}

/* A panel a layer: queries downwards, blocks to the right, the darker the more often chosen. */
static const char *in_svg(const in_state *s, const char *path) {
    const int32_t layers = s->config->layers, across = layers < IN_ACROSS ? layers : IN_ACROSS;
    const int64_t step = (s->n + IN_ROWS - 1) / IN_ROWS, rows = (s->n + step - 1) / step, left = 50, top = 40;
    const int64_t width = s->blocks * IN_CELL, height = rows * IN_CELL, right = width + left, down = height + top + 20;
    FILE *f = fopen(path, "w");
    if (!f) return "cannot write the SVG";
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%lld\" height=\"%lld\" font-family=\"sans-serif\" "
               "font-size=\"11\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
            (long long)(right * across + 20), (long long)(down * ((layers + across - 1) / across)));
    for (int32_t layer = 0; layer < layers; layer++) {
        double share = 0;
        for (int32_t h = 0; h < s->config->heads; h++) share += s->sums[layer * s->config->heads + h].sparsity;
        fprintf(f, "<g transform=\"translate(%lld,%lld)\">\n"
                   "<text y=\"-16\">layer %d holds %.1f%% of full attention</text>\n"
                   "<text y=\"-4\" fill=\"gray\">block 0 .. %lld</text>\n<text x=\"-6\" y=\"10\" text-anchor=\"end\" "
                   "fill=\"gray\">0</text>\n<text x=\"-6\" y=\"%lld\" text-anchor=\"end\" fill=\"gray\">%lld</text>\n"
                   "<rect width=\"%lld\" height=\"%lld\" fill=\"none\" stroke=\"lightgray\"/>\n<g fill=\"#134f8c\">\n",
                (long long)(layer % across * right + left), (long long)(layer / across * down + top), layer,
                100 * share / (double)(s->n * s->config->heads), (long long)(s->blocks - 1), (long long)height,
                (long long)(s->n - 1), (long long)width, (long long)height);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t b = 0; b < s->blocks; b++) {
                const double x = in_shade(s, layer, i * step, (i + 1) * step, b, b + 1);
                if (x > 0)
                    fprintf(f, "<rect x=\"%lld\" y=\"%lld\" width=\"%d\" height=\"%d\" fill-opacity=\"%.2f\"/>\n",
                            (long long)(b * IN_CELL), (long long)(i * IN_CELL), IN_CELL, IN_CELL, x);
            }
        fprintf(f, "</g>\n</g>\n");
    }
    fprintf(f, "</svg>\n");
    const bool failed = ferror(f) != 0;
    return fclose(f) != 0 || failed ? "cannot write the SVG" : NULL;
}

/* Feeds the text to the model, in_layer looking on. */
static const char *in_run(in_state *s, const lm_model *m, const lm_options *opt, const unsigned char *text) {
    const lm_config *c = s->config;
    const int64_t chunk = opt->chunk;
    lm_session session;
    int32_t *ids = lm_alloc(s->n, 1, 1, sizeof *ids);
    s->blocks = (s->n - 1) / c->block_size + 1;
    s->lists = s->per_head ? c->heads : c->kv_heads;
    s->sums = calloc((size_t)c->layers * (size_t)c->heads, sizeof *s->sums);
    s->chosen = lm_alloc(c->layers, s->n, s->blocks, sizeof *s->chosen);
    s->full = lm_alloc(chunk, c->heads, c->head_dim, sizeof(float));
    s->sparse = lm_alloc(chunk, c->heads, c->head_dim, sizeof(float));
    s->measured = lm_alloc(4, chunk, c->heads, sizeof(float));
    const char *error = lm_session_open(&session, m, opt);
    const bool opened = !error;
    s->top_k = opened ? session.opt.top_k : 1;           /* a session may lower it */
    s->list = lm_alloc(chunk, s->lists, s->top_k, sizeof *s->list);
    if (!error && (!ids || !s->sums || !s->chosen || !s->full || !s->sparse || !s->measured || !s->list))
        error = "out of memory: try a shorter text";
    if (!error) {
        memset(s->chosen, 0, (size_t)(c->layers * s->n * s->blocks) * sizeof *s->chosen);
        for (int64_t i = 0; i < s->n; i++) ids[i] = text[i];
        error = lm_feed(&session, ids, s->n, NULL, NULL, NULL);
    }
    if (opened) lm_session_close(&session);
    free(ids);
    return error;
}

int main(int argc, char **argv) {
    const char *dir = "examples/tiny-ssa", *svg = NULL, *given = NULL, *error = NULL;
    long long most = IN_TOKENS, top_k = 0;
    in_state s = { 0 };
    lm_options opt = { .mode = SSA_SPARSE, .select = SSA_SELECT_REFERENCE, .threads = 1 };
    opt.inspect = in_layer;
    opt.user = &s;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(arg, "-t")) opt.select = SSA_SELECT_TOPK;
        else if (!strcmp(arg, "-p")) s.per_head = true;
        else if (arg[0] != '-' && !given) given = arg;
        else if (arg[0] == '-' && arg[1] && strchr("dnko", arg[1]) && !arg[2] && value) {
            if (arg[1] == 'd') dir = value;
            if (arg[1] == 'n') most = atoll(value);
            if (arg[1] == 'k') top_k = atoll(value);
            if (arg[1] == 'o') svg = value;
            i++;
        } else {
            fputs(in_usage, stderr);
            return 2;
        }
    }
    lm_model model;
    lm_file held_out = { 0 };
    char *path = lm_join(dir, "heldout-text.bin");
    error = path ? lm_model_load(&model, dir) : "out of memory";
    const bool loaded = !error;
    if (!error && model.config.vocab != 256) error = "the model's tokens are not bytes";
    if (!error && !given) error = lm_file_open(&held_out, path);
    if (!error) {
        s.config = &model.config;
        s.n = given ? (int64_t)strlen(given) : (int64_t)held_out.size;
        if (s.n > most) s.n = most;
        if (s.n > model.config.max_positions) s.n = model.config.max_positions;
        opt.context = s.n;
        opt.chunk = s.n < IN_CHUNK ? (int32_t)s.n : IN_CHUNK;
        opt.top_k = top_k > 0 && top_k <= INT32_MAX ? (int32_t)top_k : model.config.top_k;
        const unsigned char *text = given ? (const unsigned char *)given : held_out.data;
        error = s.n < 1 ? "an empty text" : in_run(&s, &model, &opt, text);
    }
    if (!error) {
        in_table(&s);
        in_map(&s);
        if (svg) error = in_svg(&s, svg);
    }
    if (error) fprintf(stderr, "inspect: %s\n", error);
    if (loaded) lm_model_close(&model);
    lm_file_close(&held_out);
    free(path); free(s.sums); free(s.chosen); free(s.full); free(s.sparse); free(s.measured); free(s.list);
    return error || s.broken;
}
