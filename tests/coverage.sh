#!/bin/sh
# coverage.sh - how much of ssa.h the whole test program runs: lines and branches, and the lines that no test runs, with
# the reason where one is known. Fails below 97% of the lines. Built apart, in build/coverage. Environment: CC (gcc),
# GCOV (gcov; for clang "llvm-cov gcov"). The level amx is emulated where the CPU has what the emulation needs.
LC_ALL=C; export LC_ALL
cd "$(dirname "$0")/.." || exit 2
CC=${CC:-gcc} GCOV=${GCOV:-gcov} out=build/coverage
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1; export OMP_WAIT_POLICY OMP_NUM_THREADS   # threads fight for the counters
for tool in "$CC" ${GCOV%% *}; do
    command -v "$tool" >/dev/null 2>&1 || { echo "coverage: SKIPPED, $tool is not installed"; exit 0; }
done
emulated=
grep -q avx512_bf16 /proc/cpuinfo 2>/dev/null && emulated="-include tests/amx_emulated.h"

find $out -name '*.gcda' -exec rm {} + 2>/dev/null
${MAKE:-make} -s BUILD=$out CC="$CC" CPPFLAGS="$emulated" CFLAGS=-w IMPL_CFLAGS="-O1 --coverage" LDFLAGS=--coverage \
    $out/test || exit 2
$out/test >$out/log 2>&1 || { tail -n 30 $out/log; echo "coverage: the tests fail"; exit 1; }
for isa in scalar avx2 nonsense; do SSA_ISA=$isa $out/test isa >/dev/null || exit 1; done
OMP_NUM_THREADS=2 $out/test -b invariants >/dev/null || exit 1          # a workspace with room for fewer threads

# Counted in the one object that holds the library; a line that several levels share is run when one of them ran it.
impl="-o $out/tests/ssa_impl.gcno ssa_impl.c"       # from here, where gcov finds the source
# shellcheck disable=SC2086
$GCOV -b -n $impl | awk '/^File/ { on = /ssa\.h/ } on && /^(Branches|Taken)/'
# shellcheck disable=SC2086
$GCOV -t $impl >$out/lines 2>$out/log || exit 2
# Why a line may stay unrun: a pattern of its text -- the reason.
cat >$out/reasons <<'END_REASONS'
END_REASONS
awk -F: -v reasons=$out/reasons '
    BEGIN {
        while ((getline line < reasons) > 0) {
            i = index(line, " -- "); pattern[++n] = substr(line, 1, i - 1); why[n] = substr(line, i + 4)
        }
    }
    $2 + 0 == 0 && $3 == "Source" { ours = $4 ~ /ssa\.h$/ }
    ours && $2 + 0 > 0 && $1 !~ /^ *(-|branch|call|function)/ {
        line = $2 + 0; known[line] = 1
        if ($1 !~ /#/) run[line] = 1
        sub(/^[^:]*:[^:]*:/, ""); text[line] = $0
        if (line > last) last = line
    }
    END {
        for (i = 1; i <= last; i++) {
            if (!known[i]) continue
            total++
            if (run[i]) { hit++; continue }
            for (k = 1; k <= n && text[i] !~ pattern[k]; k++);
            printf "ssa.h:%d %s%s\n", i, text[i], k <= n ? "   -- " why[k] : ""
            if (k <= n) excused++; else bare++
        }
        if (!total) { print "coverage: nothing was measured"; exit 1 }
        share = 100 * hit / total
        printf "%.2f%% of %d lines run; %d not run with a known reason, %d without\n", share, total, excused, bare
        exit share < 97
    }' $out/lines
