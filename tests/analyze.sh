#!/bin/sh
# analyze.sh - static analysis: clang-tidy (.clang-tidy, and the list below), cppcheck (tests/cppcheck.txt), gcc
# -fanalyzer. The first two look at implementation, tests, examples and benchmark, the last at the implementation's
# scalar level. Prints a line a step and the counts; a tool that is not installed is skipped. Environment: JOBS (2),
# CLANG_TIDY, CPPCHECK, GCC.
LC_ALL=C; export LC_ALL
cd "$(dirname "$0")/.." || exit 2
JOBS=${JOBS:-2} CLANG_TIDY=${CLANG_TIDY:-clang-tidy} CPPCHECK=${CPPCHECK:-cppcheck} GCC=${GCC:-gcc}
out=build/analyze
rm -rf $out && mkdir -p $out || exit 2
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
${MAKE:-make} -s BUILD=$out $out/recipes/all || exit 2           # what test_recipes.c includes
printf '#define SSA_IMPLEMENTATION\n#include "ssa.h"\n' >$out/impl.c
others=$(ls tests/*.c examples/*.c bench/*.c | grep -v ssa_impl)

passed=0 failed=0 skipped=0
# verdict NAME STATUS LOG: says how it went; LOG is what the tool found.
verdict() {
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1)); echo "ok   $1 ($(($(date +%s) - start)) s)"
    else
        failed=$((failed + 1)); echo "FAIL $1"; head -n 40 "$3" | cut -c 1-300 | sed 's/^/     /'
    fi
}
# installed TOOL STEPS: or so many steps are skipped
installed() {
    command -v "$1" >/dev/null 2>&1 && return
    skipped=$((skipped + $2)); echo "SKIP $1: not installed; $2 step(s) are not run"; return 1
}

# What clang-tidy is not to say: a check, a pattern of the line it names, and the reason.
cat >$out/known <<'END_KNOWN'
clang-analyzer-core.DivideZero -- ssa__ceil_div.c->a.n_q, c->tile_tokens -- at least 1 in every call that was resolved
clang-analyzer-core.NullDereference -- j >= limit.r. -- limit or tile->sees is there, and entries leave both alone
END_KNOWN
if installed "$CLANG_TIDY" 2; then
    for what in implementation others; do
        # The header as the file itself: of one that is included the analyzer follows what the file calls, and no more.
        case $what in others) files=$others more=;; *) files=ssa.h more="-xc -DSSA_IMPLEMENTATION";; esac
        start=$(date +%s)
        # shellcheck disable=SC2086
        printf '%s\n' $files | xargs -P "$JOBS" -n 1 sh -c \
            '"$0" --quiet "$3" -- -std=c11 -I. -I"$1" $2 2>&1' "$CLANG_TIDY" $out "$more" >$out/tidy-$what
        status=$?
        grep -v 'warnings.* generated\.$' $out/tidy-$what | awk -v known=$out/known '
            BEGIN { while ((getline <known) > 0) { split($0, a, " -- "); check[++n] = a[1]; pattern[n] = a[2] } }
            found { for (k = 1; k <= n && !(index(found, check[k]) && $0 ~ pattern[k]); k++); on = k > n
                    if (on) print found; found = "" }
            /(error|warning): .*\[.*\]$/ { found = $0; next }
            on { print }' >$out/tidy-$what.log
        # A status without any finding: the tool itself failed.
        grep -q '\(error\|warning\): .*\]$' $out/tidy-$what && status=0
        [ ! -s $out/tidy-$what.log ] || status=1
        verdict "clang-tidy, $what" $status $out/tidy-$what.log
    done
fi
if installed "$CPPCHECK" 2; then
    # Which of the compilers' branches to follow is told: trying all combinations says no more and takes hours.
    for what in implementation others; do
        case $what in others) files=$others;; *) files=$out/impl.c;; esac
        start=$(date +%s)
        # shellcheck disable=SC2086
        "$CPPCHECK" --enable=warning,performance,portability --std=c11 -q -j "$JOBS" --error-exitcode=1 -I. -I$out \
            -D__GNUC__=12 -D__x86_64__=1 -D__linux__=1 -D__unix__=1 --suppressions-list=tests/cppcheck.txt \
            --template='{file}:{line}: {severity}: {id}: {message}' $files >$out/cppcheck-$what 2>&1
        verdict "cppcheck, $what" $? $out/cppcheck-$what
    done
fi
if installed "$GCC" 1; then
    start=$(date +%s)
    # Without the vector levels: they hold no pointers to follow, and their inlining keeps it busy for many minutes.
    "$GCC" -std=c11 -O1 -fanalyzer -Werror -DSSA_NO_SIMD=1 -I. -c -o $out/impl.o $out/impl.c >$out/analyzer 2>&1
    verdict "$GCC -fanalyzer, implementation" $? $out/analyzer
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
