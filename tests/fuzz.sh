#!/bin/sh
# fuzz.sh - fuzzes ssa.h and the examples' readers with clang's libFuzzer, address and undefined sanitizers on. Three
# targets, tests/fuzz/: calls (any descriptor), values (any numbers), files (any bytes as JSON and safetensors).
# Environment: TIME seconds each (60), TARGETS (all three), JOBS at a time (as many as there are cores), FUZZ_CC the
# compiler, BUILD the folder. Inputs that reached something new stay in BUILD/fuzz/corpus-*, so that the next run goes
# on from there.
cd "$(dirname "$0")/.." || exit 2
TIME=${TIME:-60} JOBS=${JOBS:-$(nproc 2>/dev/null || echo 1)} out=${BUILD:-build}/fuzz
mkdir -p "$out" || exit 2

# ---- one target, run by xargs: fuzz.sh --run NAME --------------------------------------------------------------------
if [ "$1" = --run ]; then
    t=$2 dict=
    [ -r "tests/seeds/$t.dict" ] && dict=-dict=tests/seeds/$t.dict
    mkdir -p "$out/corpus-$t"
    rm -f "$out/$t.failed"
    # shellcheck disable=SC2086
    "$out/$t" -max_total_time="$TIME" -max_len=4096 -len_control=0 -timeout=60 -rss_limit_mb=4096 \
        -print_final_stats=1 -artifact_prefix="$out/$t-" $dict "$out/corpus-$t" "tests/seeds/$t" >"$out/$t.log" 2>&1
    status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$t.log")
    cov=$(sed -n 's/.*\(cov: [0-9]* ft: [0-9]*\).*/\1/p' "$out/$t.log" | tail -n 1)
    if [ $status -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
        echo "ok   fuzz $t: $runs inputs in $TIME s, $cov: 1 passed, 0 failed, 0 skipped"
        exit 0
    fi
    : >"$out/$t.failed"
    found=$(sed -n 's/.*Test unit written to //p' "$out/$t.log" | tail -n 1)
    printf '%s\n' "FAIL fuzz $t: 0 passed, 1 failed, 0 skipped, after $runs inputs. To repeat, with the call printed:
     FUZZ_SHOW=1 $out/$t $found
$(grep -E 'runtime error|ERROR: |: level |SUMMARY|^ *#[0-9]' "$out/$t.log" | head -n 15 \
    | cut -c 1-200 | sed 's/^/     /')"
    exit 0
fi

cc=
echo '#include <stddef.h>
int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);
int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n) { return n > 9999999 && p[0]; }' >"$out/probe.c"
sanitizers=address,undefined,float-cast-overflow
for c in ${FUZZ_CC:-clang-19 clang}; do
    [ -z "$cc" ] && "$c" -fsanitize=fuzzer,$sanitizers -o "$out/probe" "$out/probe.c" >/dev/null 2>&1 && cc=$c
done
if [ -z "$cc" ]; then
    echo "SKIP fuzz: none of ${FUZZ_CC:-clang-19 clang} links libFuzzer with sanitizers"
    echo "0 passed, 0 failed, 3 skipped"
    exit 0
fi

flags="-O1 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all -Wall -Wextra -Wshadow"
build() {
    for f in impl fuzz calls values; do
        [ -r "$out/$f.o" ] && [ -z "$(find ssa.h tests/amx_emulated.h tests/fuzz -newer "$out/$f.o")" ] && continue
        echo "compiling tests/fuzz/$f.c"
        # shellcheck disable=SC2086
        "$cc" $flags -fsanitize=fuzzer-no-link,$sanitizers -c -o "$out/$f.o" tests/fuzz/$f.c || return 1
    done
    for t in calls values; do
        # shellcheck disable=SC2086
        "$cc" $flags -fsanitize=fuzzer,$sanitizers -o "$out/$t" "$out/$t.o" "$out/fuzz.o" "$out/impl.o" -lm || return 1
    done
    # shellcheck disable=SC2086
    "$cc" $flags -fsanitize=fuzzer,$sanitizers -o "$out/files" tests/fuzz/files.c -lm
}
build || { echo "0 passed, 3 failed, 0 skipped"; exit 1; }
export TIME BUILD
rm -f "$out"/*.failed
# shellcheck disable=SC2086
set -- ${TARGETS:-calls values files}
printf '%s\n' "$@" | xargs -P "$JOBS" -n 1 sh tests/fuzz.sh --run
failed=$(find "$out" -name '*.failed' | wc -l)
echo "$(($# - failed)) passed, $((failed)) failed, 0 skipped"
[ "$failed" -eq 0 ]
