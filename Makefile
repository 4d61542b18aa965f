# ssa.h is one header and needs no build. This file builds what stands around it: tests, examples, benchmark.
# For any make (POSIX, plus != as in GNU make 4 and BSD make) and any C11 compiler. `make help` lists the targets.
#
#   CC CFLAGS CPPFLAGS LDFLAGS LDLIBS   as everywhere; CFLAGS come after -O2 and so may say otherwise
#   IMPL_CFLAGS   more flags for the one test file that holds the implementation, e.g. -Ofast
#   OPENMP        the OpenMP flag; found by a trial link, `make OPENMP=` builds without
#   BUILD         where output goes: build
#   TIME          seconds for each target of `make fuzz`
#   ARGS          options for `make bench`, and for `make plots` if it has to run it, e.g. ARGS=--quick; `make mutants`
#   PLOT_DATA     JSON files for `make plots`, of build/bench --json and bench/peer_torch.py --json; default: made anew
#   PLOT_DIR      where `make plots` puts the SVG files: BUILD; PLOT_DIR=bench/plots for those that are kept
#   PLOT_TYPE PLOT_THREADS   which of the cases `make plots` draws: bf16 keys, the largest number of threads
#   PREFIX DESTDIR   `make install` copies ssa.h to $(DESTDIR)$(PREFIX)/include

LDLIBS     ?= -lm
BUILD      ?= build
TIME       ?= 60
PREFIX     ?= /usr/local
PLOT_DATA  ?= $(BUILD)/bench.json
PLOT_DIR   ?= $(BUILD)
WARNINGS    = -Wall -Wextra -Wpedantic -Wshadow

# A compiler may accept -fopenmp and yet have no library to link: only a whole program tells.
OPENMP != d=$(BUILD)/probe.$$$$; mkdir -p $$d && echo '\#include <omp.h>' >$$d/p.c \
          && echo 'int main(void) { return omp_get_max_threads() < 1; }' >>$$d/p.c; \
          $(CC) $(CPPFLAGS) $(CFLAGS) -fopenmp $(LDFLAGS) -o $$d/p $$d/p.c >$$d/log 2>&1 && echo -fopenmp; rm -rf $$d

FLAGS   = $(CPPFLAGS) $(WARNINGS) $(CFLAGS) $(OPENMP)
COMPILE = $(CC) -O2 $(FLAGS)
LINK    = $(CC) $(CFLAGS) $(OPENMP) $(LDFLAGS)

HEADERS != ls ssa.h tests/*.h examples/*.h 2>/dev/null || true
OBJECTS != ls tests/*.c | sed 's,tests/\(.*\)c$$,$(BUILD)/tests/\1o,'

# One rule a test file, since pattern rules are GNU's alone. Made anew by each make, moved into place in one step.
RULES   != mkdir -p $(BUILD)/tests; for f in tests/*.c; do o=`basename $$f .c`.o; more=; \
             case $$f in */ssa_impl.c) more=' $$(IMPL_CFLAGS)';; */test_recipes.c) more=' -I$$(BUILD)';; esac; \
             printf '$(BUILD)/tests/%s: %s $$(HEADERS)\n\t$$(COMPILE)%s -c -o $$@ %s\n' $$o $$f "$$more" $$f; \
           done >$(BUILD)/tests/rules.$$$$; mv $(BUILD)/tests/rules.$$$$ $(BUILD)/tests/rules.mk; echo made

.PHONY: all test demo bench examples check fuzz lint analyze coverage mutants plots install clean help

all: $(BUILD)/test $(BUILD)/bench examples ## build everything, run nothing

test: $(BUILD)/test ## build and run the tests; the last line counts them
	$(BUILD)/test

demo: $(BUILD)/ssa_lm ## run the small language model in examples/tiny-ssa, full and sparse
	OMP_WAIT_POLICY=passive $(BUILD)/ssa_lm --demo examples/tiny-ssa

bench: $(BUILD)/bench ## measure this machine's limits, then attention against them (ARGS=--quick: under a minute)
	$(BUILD)/bench $(ARGS)

examples: $(BUILD)/quickstart $(BUILD)/ssa_lm $(BUILD)/inspect ## build the examples

check: ## the build matrix: compilers, languages, levels, options, sanitizers (several minutes)
	sh tests/check.sh

fuzz: ## feed hostile calls, numbers and files to it for TIME=60 seconds each (clang with libFuzzer)
	TIME=$(TIME) BUILD=$(BUILD) sh tests/fuzz.sh

lint: ## check that the sections of ssa.h keep to their room
	sh tests/lint.sh

analyze: ## static analysis: clang-tidy, cppcheck, gcc -fanalyzer, those of them that are installed
	sh tests/analyze.sh

coverage: ## lines and branches of ssa.h that the tests run, and the lines that they do not (gcc and gcov)
	sh tests/coverage.sh

mutants: ## break ssa.h in 300 small ways, count what the tests notice (ARGS="--jobs 16 --count 300", --help)
	python3 tests/mutate.py --cppflags "$(CPPFLAGS)" $(ARGS)

plots: $(PLOT_DATA) ## draw time against context, next to the limits, from PLOT_DATA into PLOT_DIR (needs gnuplot)
	sh bench/plot.sh $(PLOT_DIR) $(PLOT_DATA)

install: ## copy ssa.h to $(DESTDIR)$(PREFIX)/include
	mkdir -p $(DESTDIR)$(PREFIX)/include
	cp ssa.h $(DESTDIR)$(PREFIX)/include/ssa.h
	chmod 644 $(DESTDIR)$(PREFIX)/include/ssa.h

clean: ## remove build output
	rm -rf $(BUILD)

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1	\2/p' Makefile | while read t what; do printf '%-9s %s\n' "$$t" "$$what"; done

$(BUILD)/test: $(OBJECTS)
	$(LINK) -o $@ $(OBJECTS) $(LDLIBS)

# The README's code is what test_recipes.c compiles: the block after <!-- recipe: NAME --> becomes recipes/NAME.h.
$(BUILD)/tests/test_recipes.o: $(BUILD)/recipes/all

$(BUILD)/recipes/all: README.md
	mkdir -p $(BUILD)/recipes
	rm -f $(BUILD)/recipes/*.h
	awk -v dir=$(BUILD)/recipes '/^<!-- recipe: [a-z0-9_]* -->$$/ { name = $$3; next } \
	    name && /^```c$$/ { file = dir "/" name ".h"; printf "#line %d \"README.md\"\n", NR + 1 >file; on = 1; next } \
	    on && /^```$$/ { close(file); on = 0; name = "" } \
	    on { print >file }' README.md
	echo made >$@

$(BUILD)/bench: bench/bench.c ssa.h
	$(COMPILE) $(LDFLAGS) -o $@ bench/bench.c $(LDLIBS)

$(BUILD)/quickstart: examples/quickstart.c ssa.h
	$(COMPILE) $(LDFLAGS) -o $@ examples/quickstart.c $(LDLIBS)

$(BUILD)/ssa_lm: examples/ssa_lm.c $(HEADERS)
	$(CC) -O3 $(FLAGS) $(LDFLAGS) -o $@ examples/ssa_lm.c $(LDLIBS)

$(BUILD)/inspect: examples/inspect.c $(HEADERS)
	$(CC) -O3 $(FLAGS) $(LDFLAGS) -o $@ examples/inspect.c $(LDLIBS)

$(BUILD)/bench.json: $(BUILD)/bench
	$(BUILD)/bench --json $@ $(ARGS)

include $(BUILD)/tests/rules.mk
