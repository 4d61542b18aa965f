/* ssa_lm - a complete small inference engine for SSA checkpoints: one model, full or block-sparse attention
 *
 *   cc -O3 -fopenmp examples/ssa_lm.c -o ssa_lm -lm
 *   ./ssa_lm --demo examples/tiny-ssa
 *   ./ssa_lm --mode both --prompt "In the beginning" --tokens 200 examples/tiny-ssa
 *   ./ssa_lm --mode both --perplexity --file examples/tiny-ssa/heldout-text.bin --tokens 16384 examples/tiny-ssa
 *
 * On a machine that is busy with other work, OMP_WAIT_POLICY=passive in the environment makes it several times faster.
 *
 * Beside this file: lm_json.h and lm_safetensors.h read the checkpoint, lm_model.h is its weights, lm_math.h the
 * arithmetic around attention, lm_run.h the forward pass and the KV cache: where ssa.h is used. Here: the command
 * line and the demonstration. */
#define SSA_IMPLEMENTATION
#include "../ssa.h"

#include "lm_run.h"

enum { LM_DEFAULT_TOKENS = 128, LM_DEFAULT_CHUNK = 256, LM_DEFAULT_WINDOW = 4096, LM_BYTES = 256 };

static const char lm_usage[] =
    "usage: ssa_lm [options] DIR\n"
    "\n"
    "Runs the language model in DIR: config.json, and model.safetensors or model.safetensors.index.json with its\n"
    "shards, in the layout of the SSA checkpoints (LlamaNSAForCausalLM). A model with a vocabulary of 256 reads and\n"
    "writes bytes; for any other, texts are token ids separated by spaces (there is no tokenizer here).\n"
    "\n"
    "  --prompt TEXT        continue this text\n"
    "  --file FILE          continue the text in FILE, or measure it with --perplexity\n"
    "  --tokens N           tokens to generate (128); with --perplexity: tokens to score (all)\n"
    "  --perplexity         measure how well the model predicts FILE, in windows of the context's size\n"
    "  --mode MODE          full, sparse (default) or both\n"
    "  --select HOW         reference (default: what the checkpoints were trained with) or topk (exact)\n"
    "  --top-k N            blocks a query attends to (the model's block_counts)\n"
    "  --kv TYPE            the cache's type: f32 (default), f16 or bf16\n"
    "  --context N          tokens the cache holds (what the prompt and --tokens need; 4096 with --perplexity)\n"
    "  --threads N          (all cores)\n"
    "  --temperature T      0 (default) takes the likeliest token\n"
    "  --top-p P            sample from the likeliest tokens that reach P together (1)\n"
    "  --seed N             of the sampling (1)\n"
    "  --demo               a guided tour of the small model in DIR, with a check of its reference values\n"
    "  --help               this text\n";

typedef struct {
    const char *dir, *prompt, *file;
    int64_t tokens, top_k, context, threads, seed;      /* 0 (tokens, seed: -1): not given */
    double temperature, top_p;
    bool full, sparse, perplexity, demo, help;
    ssa_select select;
    ssa_type kv_type;
} lm_args;

/* The one way in which this program complains. */
static int lm_fail(const char *what) {
    fprintf(stderr, "ssa_lm: %s\n", what);
    return 1;
}

/* ---- progress on stderr, once something takes more than a second ----------------------------------------------- */

typedef struct { const char *what; int64_t done, total; double start, shown; bool terminal, open; } lm_progress;

static void lm_progress_begin(lm_progress *p, const char *what, int64_t total) {
    *p = (lm_progress){ .what = what, .total = total, .start = lm_seconds() };
#if LM_HAVE_MMAP
    p->terminal = isatty(STDERR_FILENO) != 0;
#endif
    p->shown = p->start + (p->terminal ? 0.8 : -8.0);   /* a terminal's line is redrawn, a log gets one every 10 s */
}

static void lm_progress_step(void *user, int64_t tokens) {
    lm_progress *p = user;
    const double now = lm_seconds();
    p->done += tokens;
    if (now - p->start < 1 || now - p->shown < (p->terminal ? 0.2 : 10.0)) return;
    p->shown = now;
    p->open = p->terminal;
    fprintf(stderr, p->terminal ? "\r%s: %d%% " : "%s: %d%%\n", p->what,
            (int)(100.0 * (double)p->done / (double)(p->total > 0 ? p->total : 1)));
    fflush(stderr);
}

static void lm_progress_end(lm_progress *p) {
    if (p->open) fprintf(stderr, "\r%*s\r", (int)strlen(p->what) + 8, "");
    p->open = false;
}

/* ---- texts and tokens ------------------------------------------------------------------------------------------ */

/* A text as token ids: its bytes, or for other vocabularies its numbers. */
static const char *lm_tokenize(const lm_model *m, const char *text, size_t n, int32_t **ids, int64_t *count) {
    *ids = malloc((n + 1) * sizeof **ids);
    *count = 0;
    if (!*ids) return "out of memory";
    size_t i = 0;
    if (m->config.vocab == LM_BYTES) {
        for (; i < n; i++) (*ids)[(*count)++] = (unsigned char)text[i];
        return NULL;
    }
    while (i < n) {
        if (memchr(" \t\r\n,", text[i], 5)) { i++; continue; }
        int64_t id = 0;
        const size_t from = i;
        for (; i < n && text[i] >= '0' && text[i] <= '9' && id < m->config.vocab; i++) id = id * 10 + (text[i] - '0');
        if (i == from || id >= m->config.vocab || (i < n && !memchr(" \t\r\n,", text[i], 5))) {
            free(*ids);
            *ids = NULL;
            return "the vocabulary is not bytes: the text must be token ids (below vocab_size) separated by spaces";
        }
        (*ids)[(*count)++] = (int32_t)id;
    }
    return NULL;
}

static void lm_print_token(const lm_model *m, int32_t id) {
    if (m->config.vocab == LM_BYTES) putchar(id);
    else printf("%d ", id);
    fflush(stdout);
}

/* ---- generation ------------------------------------------------------------------------------------------------ */

typedef struct { double prefill, prefill_attention, decode, decode_attention; int64_t made; } lm_timing;

/* Feeds a prompt, then makes up to n tokens into out (NULL: prints them). */
static const char *lm_generate(lm_session *s, const int32_t *prompt, int64_t prompt_n, lm_sampler *sampler, int64_t n,
                               int32_t *out, lm_timing *timing) {
    const lm_config *c = &s->model->config;
    float *logits = malloc((size_t)c->vocab * sizeof *logits);
    if (!logits) return "out of memory";
    double start = lm_seconds(), attention = s->attention_seconds;
    *timing = (lm_timing){ 0 };
    const char *error = lm_feed(s, prompt, prompt_n, NULL, NULL, logits);
    timing->prefill = lm_seconds() - start;
    timing->prefill_attention = s->attention_seconds - attention;
    start = lm_seconds();
    attention = s->attention_seconds;
    while (!error && timing->made < n) {
        const int32_t id = lm_sample(sampler, logits, c->vocab);
        if (lm_is_eos(c, id)) break;
        if (out) out[timing->made] = id;
        else lm_print_token(s->model, id);
        if (++timing->made < n) error = lm_feed(s, &id, 1, NULL, NULL, logits);
    }
    timing->decode = lm_seconds() - start;
    timing->decode_attention = s->attention_seconds - attention;
    free(logits);
    return error;
}

static const char *lm_select_name(ssa_select select) { return select == SSA_SELECT_REFERENCE ? "reference" : "topk"; }

static void lm_mode_name(char out[96], const lm_options *o, const lm_config *c) {
    if (o->mode == SSA_FULL) snprintf(out, 96, "full");
    else snprintf(out, 96, "sparse, %s, top %d of blocks of %d", lm_select_name(o->select), o->top_k, c->block_size);
}

static const char *lm_run_generate(const lm_args *args, const lm_model *m, lm_options opt, const int32_t *ids,
                                   int64_t n) {
    lm_progress progress;
    lm_session s;
    lm_timing timing = { 0 };
    lm_sampler sampler = { .temperature = (float)args->temperature, .top_p = (float)args->top_p,
                           .state = args->seed < 0 ? 1 : (uint64_t)args->seed };
    char name[96];
    lm_mode_name(name, &opt, &m->config);
    opt.progress = lm_progress_step;
    opt.user = &progress;
    const char *error = lm_session_open(&s, m, &opt);
    if (error) return error;
    sampler.scratch = malloc((size_t)m->config.vocab * sizeof *sampler.scratch);
    if (!sampler.scratch) error = "out of memory";
    if (args->full && args->sparse) printf("[%s]\n", name);
    /* progress is for the prefill; tokens that appear are progress of their own, so the last prompt token ends it */
    lm_progress_begin(&progress, "prefill", n);
    int64_t fed = 0;
    for (; !error && n - fed > opt.chunk; fed += opt.chunk) error = lm_feed(&s, ids + fed, opt.chunk, NULL, NULL, NULL);
    lm_progress_end(&progress);
    s.opt.progress = NULL;
    const double before = lm_seconds() - progress.start;
    if (!error) error = lm_generate(&s, ids + fed, n - fed, &sampler, args->tokens, NULL, &timing);
    if (!error) {
        printf("\n");
        fflush(stdout);
        fprintf(stderr, "%s: prefill of %lld tokens %.2f s, %lld tokens generated in %.2f s (%.1f a second)\n", name,
                (long long)n, before + timing.prefill, (long long)timing.made, timing.decode,
                timing.decode > 0 ? (double)timing.made / timing.decode : 0);
    }
    free(sampler.scratch);
    lm_session_close(&s);
    return error;
}

static const char *lm_run_perplexity(const lm_model *m, lm_options opt, const int32_t *ids, int64_t n) {
    lm_progress progress;
    lm_session s;
    char name[96];
    double nats = 0;
    lm_mode_name(name, &opt, &m->config);
    opt.progress = lm_progress_step;
    opt.user = &progress;
    const char *error = lm_session_open(&s, m, &opt);
    if (error) return error;
    lm_progress_begin(&progress, name, n - 1);
    error = lm_score(&s, ids, n, opt.context, &nats);
    lm_progress_end(&progress);
    lm_session_close(&s);
    if (error) return error;
    printf("%-46s %9.6f nats a token", name, nats);
    if (m->config.vocab == LM_BYTES) printf("  %8.6f bits per byte", nats / log(2.0));
    printf("  perplexity %.4f  (%lld tokens, %.1f s)\n", exp(nats), (long long)(n - 1), lm_seconds() - progress.start);
    return NULL;
}

/* ---- the demonstration ----------------------------------------------------------------------------------------- */

enum { LM_DEMO_WINDOW = 4096, LM_DEMO_WINDOWS = 2, LM_DEMO_PROMPT = 2048, LM_DEMO_MADE = 400, LM_DEMO_COLUMN = 44 };

typedef struct {
    const lm_model *model;
    lm_options opt;                 /* as the model was trained */
    const unsigned char *text;      /* held-out bytes */
    int64_t text_n;
    int32_t *ids;                   /* the same as token ids */
    int64_t prompt_n;               /* the bytes of the prompt: whole lines */
    lm_progress progress;
} lm_demo;

/* The next line of a text, at most `width` characters, broken at a space where there is one. */
static void lm_demo_line(char *out, const int32_t *ids, int64_t n, int64_t *at, int64_t width) {
    int64_t len = 0, space = 0;
    while (len < width && *at + len < n && ids[*at + len] != '\n') {
        const int32_t c = ids[*at + len];
        if (c == ' ') space = len;
        out[len++] = c >= 0x20 && c < 0x7F ? (char)c : '?';
    }
    const bool broken = len == width && *at + len < n && ids[*at + len] != '\n' && ids[*at + len] != ' ';
    if (broken && space > 0) len = space;
    *at += len;
    if (*at < n && (ids[*at] == '\n' || ids[*at] == ' ')) (*at)++;
    out[len] = 0;
}

static const char *lm_demo_continue(lm_demo *d) {
    static int32_t made[2][LM_DEMO_MADE];
    lm_timing timing[2] = { { 0 } };
    const char *error = NULL;
    printf("1. One prompt, continued twice (the likeliest byte each time)\n\n");
    printf("   The prompt is %lld bytes of text that the model never saw. It ends:\n\n", (long long)d->prompt_n);
    int64_t at = d->prompt_n, lines = 0;
    while (at > 0 && !(d->text[at - 1] == '\n' && ++lines == 4)) at--;
    while (at < d->prompt_n) {
        char line[2 * LM_DEMO_COLUMN + 1];
        lm_demo_line(line, d->ids, d->prompt_n, &at, 2 * LM_DEMO_COLUMN);
        printf("    %s\n", line);
    }
    for (int mode = 0; !error && mode < 2; mode++) {
        lm_session s;
        lm_sampler sampler = { 0 };
        lm_options opt = d->opt;
        opt.mode = mode == 0 ? SSA_FULL : SSA_SPARSE;
        opt.context = d->prompt_n + LM_DEMO_MADE;
        error = lm_session_open(&s, d->model, &opt);
        if (error) break;
        lm_progress_begin(&d->progress, "continuing", d->prompt_n + LM_DEMO_MADE);
        error = lm_generate(&s, d->ids, d->prompt_n, &sampler, LM_DEMO_MADE, made[mode], &timing[mode]);
        lm_progress_end(&d->progress);
        lm_session_close(&s);
    }
    if (error) return error;
    printf("\n    %-*s   %s\n", LM_DEMO_COLUMN, "FULL: every key", "SPARSE: the most important blocks");
    int64_t from[2] = { 0, 0 };
    while (from[0] < timing[0].made || from[1] < timing[1].made) {
        char line[2][LM_DEMO_COLUMN + 1];
        for (int mode = 0; mode < 2; mode++)
            lm_demo_line(line[mode], made[mode], timing[mode].made, &from[mode], LM_DEMO_COLUMN);
        printf("    %-*s | %s\n", LM_DEMO_COLUMN, line[0], line[1]);
    }
    int64_t same = 0;
    while (same < timing[0].made && same < timing[1].made && made[0][same] == made[1][same]) same++;
    printf("\n    The same %lld bytes at first. A full query reads up to %lld keys here, a sparse one at most %d.\n",
           (long long)same, (long long)(d->prompt_n + LM_DEMO_MADE - 1), d->opt.top_k * d->model->config.block_size);
    return NULL;
}

/* Bits per byte of the first windows of the held-out text. */
static const char *lm_demo_bits(lm_demo *d, ssa_mode mode, ssa_select select, int32_t top_k, double *bits) {
    lm_session s;
    lm_options opt = d->opt;
    opt.mode = mode;
    opt.select = select;
    opt.top_k = top_k;
    opt.context = LM_DEMO_WINDOW;
    const char *error = lm_session_open(&s, d->model, &opt);
    if (error) return error;
    error = lm_score(&s, d->ids, d->text_n, LM_DEMO_WINDOW, bits);
    *bits /= log(2.0);
    lm_session_close(&s);
    return error;
}

static const char *lm_demo_table(lm_demo *d) {
    static const int32_t budgets[] = { 4, 8, 16, 32, 64 };
    enum { BUDGETS = sizeof budgets / sizeof *budgets };
    static const struct { ssa_select select; const char *name; } ways[] = {
        { SSA_SELECT_TOPK, "sparse, exact top-k" }, { SSA_SELECT_REFERENCE, "sparse, reference" }
    };
    const int32_t block = d->model->config.block_size;
    double full = 0, bits[2][BUDGETS];
    int runs = 1;
    for (int way = 0; way < 2; way++)
        for (int i = 0; i < BUDGETS; i++) {
            bits[way][i] = -1;
            runs += ways[way].select == SSA_SELECT_TOPK || budgets[i] <= block;
        }
    printf("\n2. Bits per byte of held-out text: %lld bytes in windows of %d (lower is better)\n\n",
           (long long)d->text_n - 1, LM_DEMO_WINDOW);
    lm_progress_begin(&d->progress, "scoring", runs * (d->text_n - 1));
    const char *error = lm_demo_bits(d, SSA_FULL, SSA_SELECT_TOPK, 1, &full);
    for (int way = 0; way < 2; way++)
        for (int i = 0; i < BUDGETS && !error; i++)
            if (ways[way].select == SSA_SELECT_TOPK || budgets[i] <= block)
                error = lm_demo_bits(d, SSA_SPARSE, ways[way].select, budgets[i], &bits[way][i]);
    lm_progress_end(&d->progress);
    if (error) return error;
    printf("    %-24s", "blocks a query reads");
    for (int i = 0; i < BUDGETS; i++) printf("%8d", budgets[i]);
    printf("%8s\n    %-24s", "all", "keys a query reads");
    for (int i = 0; i < BUDGETS; i++) printf("%8d", budgets[i] * block);
    printf("%8s\n    %-24s%*s%8.4f\n", "all", "full", BUDGETS * 8, "", full);
    for (int way = 0; way < 2; way++) {
        printf("    %-24s", ways[way].name);
        for (int i = 0; i < BUDGETS; i++)
            if (bits[way][i] < 0) printf("%8s", "-");
            else printf("%8.4f", bits[way][i]);
        printf("\n");
    }
    printf("\n    The exact selection is the paper's. The reference selection is the official GPU kernel's, with\n"
           "    which this model was trained (%d blocks): made for up to %d, it keeps fewer in long texts.\n",
           d->model->config.top_k, block);
    return NULL;
}

static const char *lm_demo_sparsity(lm_demo *d) {
    const lm_config *c = &d->model->config;
    lm_session s;
    lm_options opt = d->opt;
    const int64_t n = d->text_n < LM_DEMO_WINDOW ? d->text_n : LM_DEMO_WINDOW;
    opt.mode = SSA_SPARSE;
    opt.measure_sparsity = true;
    opt.context = n;
    const char *error = lm_session_open(&s, d->model, &opt);
    if (error) return error;
    lm_progress_begin(&d->progress, "measuring", n);
    error = lm_feed(&s, d->ids, n, NULL, NULL, NULL);
    lm_progress_end(&d->progress);
    if (!error) {
        printf("\n3. Attention sparsity: the share of full attention's weight that the selected blocks hold\n");
        printf("   (mean over heads and %lld positions)\n\n", (long long)n);
        for (int32_t i = 0; i < c->layers; i++) {
            const double share = s.kept[i] / (double)s.kept_n;
            char bar[41] = "";
            for (int k = 0; k < 40 && k < (int)(share * 40 + 0.5); k++) { bar[k] = '#'; bar[k + 1] = 0; }
            printf("    layer %-3d %6.1f%%  %s\n", i, 100 * share, bar);
        }
    }
    lm_session_close(&s);
    return error;
}

static const char *lm_demo_time(lm_demo *d) {
    enum { MADE = 64 };
    static int32_t made[MADE];
    const int64_t n = d->text_n < LM_DEMO_WINDOW ? d->text_n : LM_DEMO_WINDOW;
    const char *error = NULL;
    printf("\n4. Time on this machine: level %s, %d thread%s\n\n", ssa_isa_name(ssa_isa_get()), d->opt.threads,
           d->opt.threads == 1 ? "" : "s");
    printf("    %-8s  prefill of %lld bytes                       decode, a byte\n", "", (long long)n);
    for (int mode = 0; !error && mode < 2; mode++) {
        lm_session s;
        lm_timing t = { 0 };
        lm_sampler sampler = { 0 };
        lm_options opt = d->opt;
        opt.mode = mode == 0 ? SSA_FULL : SSA_SPARSE;
        opt.context = n + MADE;
        error = lm_session_open(&s, d->model, &opt);
        if (error) break;
        lm_progress_begin(&d->progress, "timing", n + MADE);
        error = lm_generate(&s, d->ids, n, &sampler, MADE, made, &t);
        lm_progress_end(&d->progress);
        lm_session_close(&s);
        const double steps = t.made > 1 ? (double)t.made - 1 : 1;       /* the first byte comes from the prefill */
        if (!error)
            printf("    %-8s  %7.0f ms, of which attention %6.0f ms   %6.2f ms, of which attention %5.2f ms\n",
                   mode == 0 ? "full" : "sparse", 1e3 * t.prefill, 1e3 * t.prefill_attention, 1e3 * t.decode / steps,
                   1e3 * t.decode_attention / steps);
    }
    return error;
}

/* ---- the check against reference.safetensors ------------------------------------------------------------------- */

typedef struct { const char *name, *nll, *logits, *greedy; ssa_mode mode; ssa_select select; } lm_check_case;
static const lm_check_case lm_check_cases[] = {
    { "full", "nll_full", "last_logits_full", "greedy_full", SSA_FULL, SSA_SELECT_TOPK },
    { "sparse, reference", "nll_sparse_official", "last_logits_sparse_official", "greedy_sparse_official", SSA_SPARSE,
      SSA_SELECT_REFERENCE },
    { "sparse, exact top-k", "nll_sparse_exact", "last_logits_sparse_exact", NULL, SSA_SPARSE, SSA_SELECT_TOPK },
};

/* The data of a tensor of n elements, copied; NULL when it is not there in that shape. */
static void *lm_check_tensor(const lm_st *st, const char *name, lm_dtype dtype, int64_t n) {
    const lm_tensor *t = lm_st_find(st, name);
    if (!t || t->dtype != dtype || t->rank != 1 || t->shape[0] != n || t->bytes == 0) return NULL;
    void *copy = malloc(t->bytes);
    if (copy) memcpy(copy, t->data, t->bytes);
    return copy;
}

static bool lm_check_line(const char *name, const char *what, double value, double reference, double tolerance) {
    const bool ok = fabs(value - reference) <= tolerance;
    printf("    %-20s  %-38s %10.6f  %10.6f  %s\n", name, what, value, reference, ok ? "ok" : "DIFFERS");
    return ok;
}

static const char *lm_check_case_run(lm_demo *d, const lm_st *st, const lm_check_case *k, const int32_t *ids,
                                     int64_t n, int *bad) {
    enum { PROMPT = 512, MADE = 128 };
    const int64_t vocab = d->model->config.vocab;
    lm_options opt = d->opt;
    lm_session s;
    lm_sampler sampler = { 0 };
    lm_timing timing = { 0 };
    int32_t made[MADE];
    float *nll = malloc((size_t)n * sizeof *nll), *logits = malloc((size_t)vocab * sizeof *logits);
    float *want_nll = lm_check_tensor(st, k->nll, LM_F32, n - 1);
    float *want_logits = lm_check_tensor(st, k->logits, LM_F32, vocab);
    int32_t *want_made = k->greedy ? lm_check_tensor(st, k->greedy, LM_I32, MADE) : NULL;
    opt.mode = k->mode;
    opt.select = k->select;
    opt.top_k = d->model->config.top_k;
    opt.kv_type = SSA_F32;          /* whatever the options say: what the reference was computed with */
    opt.context = n;
    const char *error = lm_session_open(&s, d->model, &opt);
    if (!nll || !logits || !want_nll || !want_logits || (k->greedy && !want_made) || n < PROMPT + MADE)
        error = error ? error : "a reference tensor is missing or has another shape";
    else if (!error) {
        lm_progress_begin(&d->progress, "checking", n + PROMPT + MADE);
        error = lm_feed(&s, ids, n - 1, ids + 1, nll, NULL);
        if (!error) error = lm_feed(&s, ids + n - 1, 1, NULL, NULL, logits);
        if (!error) error = lm_session_rewind(&s, 0);
        if (!error && k->greedy) error = lm_generate(&s, ids, PROMPT, &sampler, MADE, made, &timing);
        lm_progress_end(&d->progress);
    }
    if (!error) {
        double mean = 0, want_mean = 0, off = 0;
        for (int64_t i = 0; i < n - 1; i++) { mean += (double)nll[i]; want_mean += (double)want_nll[i]; }
        for (int64_t i = 0; i < vocab; i++) off = fmax(off, fabs((double)logits[i] - (double)want_logits[i]));
        int64_t same = 0;
        while (k->greedy && same < timing.made && made[same] == want_made[same]) same++;
        mean /= (double)(n - 1);
        want_mean /= (double)(n - 1);
        *bad += !lm_check_line(k->name, "mean -log p of 2047 bytes", mean, want_mean, 2e-4);
        *bad += !lm_check_line("", "largest error of the last logits", off, 0, 2e-3);
        if (k->greedy) *bad += !lm_check_line("", "equal bytes of 128 greedy ones", (double)same, MADE, 0);
    }
    free(nll);
    free(logits);
    free(want_nll);
    free(want_logits);
    free(want_made);
    lm_session_close(&s);
    return error;
}

static const char *lm_demo_check(lm_demo *d, const lm_file *file, int *bad) {
    lm_st st;
    const char *error = lm_st_parse(&st, file->data, file->size);
    static char text[LM_ERROR_SIZE];
    if (error) return lm_error(text, "%s", error);
    const lm_tensor *t = lm_st_find(&st, "ids");
    const int64_t n = t && t->rank == 1 && t->shape[0] < (1 << 20) ? t->shape[0] : 0;
    int32_t *ids = lm_check_tensor(&st, "ids", LM_I32, n);
    if (!ids) error = "no tensor ids";
    printf("\n5. Check against the official implementation's values\n\n");
    printf("    %-20s  %-38s %10s  %10s\n", "", "", "here", "reference");
    for (size_t i = 0; !error && i < sizeof lm_check_cases / sizeof *lm_check_cases; i++)
        error = lm_check_case_run(d, &st, &lm_check_cases[i], ids, n, bad);
    free(ids);
    lm_st_free(&st);
    return error;
}

static int lm_run_demo(const lm_model *m, const char *dir, lm_options opt) {
    const lm_config *c = &m->config;
    const double start = lm_seconds();
    lm_demo d = { .model = m, .opt = opt };
    lm_file text = { 0 }, reference = { 0 };
    char *text_path = lm_join(dir, "heldout-text.bin"), *reference_path = lm_join(dir, "reference.safetensors");
    const char *error = !text_path || !reference_path ? "out of memory" : NULL, *where = dir;
    int bad = 0;
    if (!error && c->vocab != LM_BYTES) error = "the demonstration needs a model of bytes (vocab_size 256)";
    if (!error) error = lm_file_open(&text, where = text_path);
    if (!error && text.size <= LM_DEMO_PROMPT) error = "too short for the demonstration";
    if (!error) error = lm_file_open(&reference, where = reference_path);
    if (!error) {
        where = dir;
        d.text = text.data;
        d.text_n = (int64_t)text.size < LM_DEMO_WINDOWS * LM_DEMO_WINDOW + 1 ? (int64_t)text.size
                                                                             : LM_DEMO_WINDOWS * LM_DEMO_WINDOW + 1;
        d.ids = malloc((size_t)d.text_n * sizeof *d.ids);
        d.opt.progress = lm_progress_step;
        d.opt.user = &d.progress;
        if (!d.ids) error = "out of memory";
        for (int64_t i = 0; !error && i < d.text_n; i++) d.ids[i] = d.text[i];
        d.prompt_n = LM_DEMO_PROMPT;
        while (d.prompt_n > 1 && d.text[d.prompt_n - 1] != '\n') d.prompt_n--;
    }
    if (!error) {
        printf("A small SSA language model of bytes: %d layers, hidden %d, %d query heads on %d key/value head%s,\n"
               "%d blocks of %d keys a query\n\n", c->layers, c->hidden, c->heads, c->kv_heads,
               c->kv_heads == 1 ? "" : "s", c->top_k, c->block_size);
        error = lm_demo_continue(&d);
    }
    if (!error) error = lm_demo_table(&d);
    if (!error) error = lm_demo_sparsity(&d);
    if (!error) error = lm_demo_time(&d);
    if (!error) error = lm_demo_check(&d, &reference, (where = reference_path, &bad));
    if (!error) {
        if (bad) printf("\n%d value%s. ", bad, bad == 1 ? " DIFFERS" : "s DIFFER");
        else printf("\nAll values agree. ");
        printf("The demonstration took %.0f seconds.\n", lm_seconds() - start);
    }
    fflush(stdout);
    if (error) fprintf(stderr, "ssa_lm: %s: %s\n", where ? where : "", error);
    free(d.ids);
    free(text_path);
    free(reference_path);
    lm_file_close(&text);
    lm_file_close(&reference);
    return error || bad;
}

/* ---- the command line ------------------------------------------------------------------------------------------ */

static bool lm_arg_int(const char *text, int64_t low, int64_t *value) {
    char *end;
    errno = 0;
    const long long parsed = strtoll(text, &end, 10);
    if (end == text || *end || errno || parsed < low || parsed > (long long)1 << 40) return false;
    *value = parsed;
    return true;
}

static bool lm_arg_number(const char *text, double low, double high, double *value) {
    char *end;
    const double parsed = strtod(text, &end);
    if (end == text || *end || !(parsed >= low && parsed <= high)) return false;
    *value = parsed;
    return true;
}

/* True when the option's value is a good one. */
static bool lm_arg_value(lm_args *a, const char *name, const char *value) {
    if (strcmp(name, "--prompt") == 0) { a->prompt = value; return true; }
    if (strcmp(name, "--file") == 0) { a->file = value; return true; }
    if (strcmp(name, "--tokens") == 0) return lm_arg_int(value, 1, &a->tokens);
    if (strcmp(name, "--top-k") == 0) return lm_arg_int(value, 1, &a->top_k) && a->top_k <= LM_MAX_SIZE;
    if (strcmp(name, "--context") == 0) return lm_arg_int(value, 1, &a->context);
    if (strcmp(name, "--threads") == 0) return lm_arg_int(value, 1, &a->threads) && a->threads <= 4096;
    if (strcmp(name, "--seed") == 0) return lm_arg_int(value, 0, &a->seed);
    if (strcmp(name, "--temperature") == 0) return lm_arg_number(value, 0, 1e6, &a->temperature);
    if (strcmp(name, "--top-p") == 0) return lm_arg_number(value, 0, 1, &a->top_p);
    if (strcmp(name, "--mode") == 0) {
        a->full = strcmp(value, "full") == 0 || strcmp(value, "both") == 0;
        a->sparse = strcmp(value, "sparse") == 0 || strcmp(value, "both") == 0;
        return a->full || a->sparse;
    }
    if (strcmp(name, "--select") == 0) {
        a->select = strcmp(value, "topk") == 0 ? SSA_SELECT_TOPK : SSA_SELECT_REFERENCE;
        return a->select == SSA_SELECT_TOPK || strcmp(value, "reference") == 0;
    }
    a->kv_type = strcmp(value, "f16") == 0 ? SSA_F16 : strcmp(value, "bf16") == 0 ? SSA_BF16 : SSA_F32;     /* --kv */
    return a->kv_type != SSA_F32 || strcmp(value, "f32") == 0;
}

static const char *lm_args_parse(lm_args *a, int argc, char **argv) {
    static const char *const valued[] = { "--prompt", "--file", "--tokens", "--top-k", "--context", "--threads",
                                          "--seed", "--temperature", "--top-p", "--mode", "--select", "--kv" };
    enum { VALUED = sizeof valued / sizeof *valued };
    static char text[LM_ERROR_SIZE];
    *a = (lm_args){ .seed = -1, .top_p = 1, .sparse = true, .select = SSA_SELECT_REFERENCE, .kv_type = SSA_F32 };
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        int k = 0;
        while (k < VALUED && strcmp(arg, valued[k]) != 0) k++;
        if (k < VALUED) {
            if (++i == argc) return lm_error(text, "%s needs a value", arg);
            if (!lm_arg_value(a, arg, argv[i])) return lm_error(text, "%s cannot be \"%.100s\"", arg, argv[i]);
        }
        else if (strcmp(arg, "--demo") == 0) a->demo = true;
        else if (strcmp(arg, "--perplexity") == 0) a->perplexity = true;
        else if (strcmp(arg, "--help") == 0) a->help = true;
        else if (arg[0] == '-') return lm_error(text, "unknown option %.100s", arg);
        else if (a->dir) return lm_error(text, "more than one directory: %.100s", arg);
        else a->dir = arg;
    }
    if (a->help) return NULL;
    if (!a->dir) return "no model directory";
    if (a->demo) return NULL;
    if (a->prompt && a->file) return "--prompt and --file at once";
    if (a->perplexity && !a->file) return "--perplexity needs --file";
    if (!a->prompt && !a->file) return "nothing to do: --prompt, --file or --demo";
    return NULL;
}

static int lm_default_threads(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* --prompt, --file and --perplexity. */
static int lm_run_text(lm_args *args, const lm_model *m, lm_options opt) {
    const int64_t most = m->config.max_positions;
    lm_file file = { 0 };
    int32_t *ids = NULL;
    int64_t n = 0;
    const char *error = NULL, *where = args->file ? args->file : args->dir;
    if (args->file) error = lm_file_open(&file, args->file);
    if (!error)
        error = args->file ? lm_tokenize(m, (const char *)file.data, file.size, &ids, &n)
                           : lm_tokenize(m, args->prompt, strlen(args->prompt), &ids, &n);
    lm_file_close(&file);
    if (!error && args->perplexity) {
        if (args->tokens && n > args->tokens + 1) n = args->tokens + 1;
        if (n < 2) error = "too short to be scored";
        opt.context = args->context ? args->context : LM_DEFAULT_WINDOW < most ? LM_DEFAULT_WINDOW : most;
        if (opt.context > n - 1) opt.context = n - 1;
    } else if (!error) {
        if (!args->tokens) args->tokens = LM_DEFAULT_TOKENS;
        if (n < 1) error = "an empty prompt";
        opt.context = args->context ? args->context : n + args->tokens;
        if (n + args->tokens > opt.context) error = "the prompt and --tokens do not fit in --context";
    }
    if (!error && opt.context > most) {
        static char text[LM_ERROR_SIZE];
        error = lm_error(text, "a context of %lld tokens is more than the model's %lld (max_position_embeddings)",
                         (long long)opt.context, (long long)most);
    }
    for (int mode = 0; !error && mode < 2; mode++) {
        if (!(mode == 0 ? args->full : args->sparse)) continue;
        opt.mode = mode == 0 ? SSA_FULL : SSA_SPARSE;
        error = args->perplexity ? lm_run_perplexity(m, opt, ids, n) : lm_run_generate(args, m, opt, ids, n);
        where = args->dir;
    }
    free(ids);
    if (error) fprintf(stderr, "ssa_lm: %s: %s\n", where, error);
    return error != NULL;
}

int main(int argc, char **argv) {
    lm_args args;
    lm_model model;
    const char *error = lm_args_parse(&args, argc, argv);
    if (error) {
        fprintf(stderr, "ssa_lm: %s (--help lists the options)\n", error);
        return 2;
    }
    if (args.help) {
        fputs(lm_usage, stdout);
        return 0;
    }
    error = lm_model_load(&model, args.dir);
    if (error) return lm_fail(error);
    lm_options opt = { .select = args.select, .kv_type = args.kv_type, .chunk = LM_DEFAULT_CHUNK };
    opt.top_k = args.top_k ? (int32_t)args.top_k : model.config.top_k;
    opt.threads = args.threads ? (int)args.threads : lm_default_threads();
#ifndef _OPENMP
    if (opt.threads > 1) {
        fprintf(stderr, "ssa_lm: built without OpenMP: one thread\n");
        opt.threads = 1;
    }
#endif
    const int status = args.demo ? lm_run_demo(&model, args.dir, opt) : lm_run_text(&args, &model, opt);
    lm_model_close(&model);
    return status;
}
