#!/bin/sh
# lint.sh [ssa.h] - checks that each section of ssa.h keeps to the room that its own table of contents gives it, and
# the form of the other sources. POSIX sh, awk and grep. Prints a line a check, what it found below it, and counts at
# the end.
LC_ALL=C; export LC_ALL
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
cd "$root" || exit 2
h=${1:-ssa.h}
[ -r "$h" ] || { echo "lint: cannot read $h"; exit 2; }
tmp=${TMPDIR:-/tmp}/ssa-lint.$$
mkdir "$tmp" || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# code: "line<TAB>section<TAB>kind<TAB>text" for every line, comments and the contents of strings taken out.
# kind: c = nothing but comment, b = blank, x = code. A section begins at a boxed comment whose first text line starts
# with its number. An open comment's first line counts to the section before, which is what every check wants.
awk '
{
    raw = $0; text = ""; had = incomment
    while (raw != "") {
        if (incomment) {
            i = index(raw, "*/"); had = 1
            if (i == 0) { raw = ""; break }
            raw = substr(raw, i + 2); incomment = 0; text = text " "
            continue
        }
        if (!match(raw, /\/\*|\/\/|"|\047/)) { text = text raw; break }
        text = text substr(raw, 1, RSTART - 1); t = substr(raw, RSTART, RLENGTH)
        raw = substr(raw, RSTART + RLENGTH)
        if (t == "/*") { incomment = 1; had = 1; continue }
        if (t == "//") { had = 1; break }
        if (t == "\"") match(raw, /^([^"\\]|\\.)*"/); else match(raw, /^([^\047\\]|\\.)*\047/)
        if (RLENGTH > 0) raw = substr(raw, RLENGTH + 1)
        text = text t t
    }
    if (box && match($0, /^ \* +[0-9]+  [A-Z]/)) { split($0, w, " "); section = w[2] + 0; starts = starts " " section }
    box = $0 ~ /^\/\* =====/
    blank = text ~ /^[ \t]*$/
    printf "%d\t%d\t%s\t%s\n", NR, section, blank ? (had ? "c" : "b") : "x", text
}
END { print "sections" starts > "/dev/stderr" }' "$h" >"$tmp/code" 2>"$tmp/sections"

passed=0; failed=0; warned=0
# verdict NAME: $tmp/found holds what a check found; empty is good.
verdict() {
    if [ -s "$tmp/found" ]; then
        failed=$((failed + 1)); echo "FAIL $1"
        awk '
            NR <= 20 { print "     " $0 } END { if (NR > 20) print "     and " NR - 20 " more" }' "$tmp/found"
    else
        passed=$((passed + 1)); echo "ok   $1"
    fi
}
# only PATTERN SECTIONS NAME [EXCEPT]: code that matches stands only in these sections (a list, commas on both sides).
# EXCEPT is a pattern of lines that may stand anywhere.
only() {
    awk -F '\t' -v p="$1" -v where="$2" -v except="${4:-^$}" -v h="$h" '
        $3 == "x" && $4 ~ p && index(where, "," $2 ",") == 0 && $4 !~ except {
            printf "%s:%d (section %d) %s\n", h, $1, $2, $4 }' "$tmp/code" >"$tmp/found"
    verdict "$3"
}
# form NAME PATTERN FILES..: no line matches.
form() {
    name=$1; pattern=$2; shift 2
    awk -v p="$pattern" '$0 ~ p { printf "%s:%d %s\n", FILENAME, FNR, substr($0, 1, 80) }' "$@" >"$tmp/found"
    verdict "$name"
}

echo "sections 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16" | diff - "$tmp/sections" | sed 's/^</wanted/; s/^>/found /' \
    | grep '^[wf]' >"$tmp/found"
verdict "sections 1 to 16, each once, in order"

awk '/^ \* CONTENTS/ { on = 1 } on && /^ \* +[0-9]+  / { split($0, w, " "); list = list " " w[2] } /^#/ { exit }
     END { print "sections" list }' "$h" | diff - "$tmp/sections" \
    | sed 's/^</contents/; s/^>/found   /' | grep '^[cf]' >"$tmp/found"
verdict "the contents list the sections that there are"

W='(^|[^A-Za-z0-9_])'       # a word begins
only "${W}(_mm[0-9]*_|__m(64|128|256|512)|__mmask|__tile|_tile_|__builtin_ia32)|immintrin|x86intrin" ,4,8,9,10, \
     "x86 intrinsics only in 4, 8, 9, 10"
neon="arm_neon|arm_sve|(float|bfloat|int|poly)(8|16|32|64)x[0-9]|${W}v(ld|st)[1-4]|${W}v[a-z0-9]+_[fsup](8|16|32|64)"
only "$neon" ,4,8,9,10, "ARM intrinsics only in 4, 8, 9, 10"
only "wasm_simd128|${W}(wasm_[a-z0-9]+_|v128_t)" ,4,8,9,10, "WebAssembly intrinsics only in 4, 8, 9, 10"
only "_MSC_VER|_MSC_FULL|__GNUC|__clang|__has_|__INTEL|__TINYC|__MINGW|__apple_build|__STDC_NO" ,4, \
     "tests of the compiler only in 4"
cpu="__x86_64|__i386|__amd64|_M_X64|_M_IX86|_M_AMD64|__aarch64|_M_ARM|__ARM|__AVX|__SSE|__FMA|__F16C|__wasm"
only "${W}($cpu|_WIN32|__linux|__unix|__APPLE|__FAST_MATH|__OPTIMIZE)" ,4, "tests of the platform only in 4"
only "cpuid|CPUID|xgetbv|getauxval|arch_prctl|${W}syscall|${W}getenv" ,4,10, \
     "CPUID, XCR0, getenv only in 10 (made ready in 4)"
only "${W}omp_|[<]omp[.]h|# *pragma +omp|_Pragma" ,4,14, "OpenMP only in 14 (made ready in 4)"
only "${W}SSA_(MALLOC|FREE) *[(]" ,14, "SSA_MALLOC and SSA_FREE called only in 14" "# *define +SSA_(MALLOC|FREE)"
only "${W}(malloc|calloc|realloc|free|alloca|aligned_alloc) *[(]" ,, "no bare allocation" "# *define +SSA_(MALLOC|FREE)"
# 14 alone sees the allocation and the missing workspace; it may say these two, and passes on whatever 11 said.
make="(return|[=?:,(]) *SSA_ERR_"
only "$make" ,2,11, "error codes made only in 11" "case +SSA_ERR_|$make(MEMORY|WORKSPACE)"
only "$make(MEMORY|WORKSPACE)" ,2,11,14, "SSA_ERR_MEMORY and SSA_ERR_WORKSPACE made only in 11, 14" "case +SSA_ERR_"
for s in 12 13; do
    awk -F '\t' -v s=$s -v h="$h" '$2 == s && $3 == "x" && $4 ~ /^ *# *(if|el|endif)|malloc|SSA_MALLOC/ {
        printf "%s:%d %s\n", h, $1, $4 }' "$tmp/code" >"$tmp/found"
    verdict "$s holds no #if and no allocation"
done
only "${W}(printf|fprintf|puts|perror|abort|exit|fopen) *[(]" ,, "no input, output or exit"
only "# *include" ,0,2,4,8,14, "#include only before 2, in 4, 8 and 14"
only "# *pragma +(GCC|clang) +target" ,, "no #pragma target: clang ignores GCC's"
only "${W}(isnan|isinf|isfinite|INFINITY|NAN)" ,4,5, "no isnan, isinf, INFINITY, which fast-math breaks (4, 5 may wrap)"

# A prototype in section 3 has a comment above it, or above the group of lines it stands in.
awk -F '\t' '$3 != "b" || $2 == 3' "$tmp/code" | awk -F '\t' -v h="$h" '
    $2 == 3 {
        if ($4 ~ /^SSA_API/) { if (!documented) printf "%s:%d %s\n", h, $1, $4; open = 1 }
        if ($3 == "c") documented = 1
        else if ($3 == "b") documented = 0
        else if (!open) documented = 0
        if ($4 ~ /;/) open = 0
    }' >"$tmp/found"
verdict "every public prototype has its comment"

awk -F '\t' -v h="$h" '$3 == "x" && $4 ~ /^SSA_API/ {
    if ($2 != 3 && $2 != 14) printf "%s:%d (section %d) %s\n", h, $1, $2, $4
    else if ($2 == 3 && match($4, /ssa_[a-z0-9_]+ *[(]/) && n[substr($4, RSTART, RLENGTH)]++)
        printf "%s:%d again: %s\n", h, $1, $4
}' "$tmp/code" >"$tmp/found"
verdict "public functions only in 3 and 14, each declared once"

long() {
    name=$1; shift
    awk 'length > 120 { printf "%s:%d %d columns\n", FILENAME, FNR, length }' "$@" >"$tmp/found"
    verdict "$name"
}
long "$h: 120 columns at most" "$h"
form "$h: ASCII only" "[^ -~\t]" "$h"
form "$h: no tabs" "\t" "$h"
form "$h: no blanks at the end of a line" "[ \t]$" "$h"
form "$h: no marks of unfinished work" "TODO|FIXME|XXX|HACK" "$h"
if [ $# -eq 0 ]; then
    others=$(ls tests/*.[ch] tests/*.sh examples/*.[ch] bench/*.c bench/*.sh bench/*.py .ci/run 2>/dev/null)
    # shellcheck disable=SC2086
    long "other sources: 120 columns at most" $others
    # shellcheck disable=SC2086
    form "other sources: ASCII, no tabs, no blanks at the end" "[^ -~\t]|\t|[ \t]$" $others
fi

awk '/^<!-- recipe: / { name = $3; n = 0 } name { n++ }     # with the lines around the code, 3 more
     name && /^```$/ { if (n > 12) print name ": " n - 3 " lines"; name = "" }' README.md >"$tmp/found"
verdict "README.md: recipes under 10 lines"
sed -n 's/^<!-- recipe: \(.*\) -->$/\1/p' README.md | while read -r r; do
    grep -q "^#include \"recipes/$r.h\"$" tests/test_recipes.c || echo "$r"; done >"$tmp/found"
verdict "README.md: every recipe is tested"

share=$(awk -F '\t' '$3 == "c" { c++ } $3 != "b" { n++ } END { printf "%d", n ? 100 * c / n + 0.5 : 0 }' "$tmp/code")
if [ "$share" -lt 20 ] || [ "$share" -gt 30 ]; then
    warned=$((warned + 1)); echo "warn $share% of the lines are comment; 20 to 30 are meant"
else
    echo "ok   $share% of the lines are comment"; passed=$((passed + 1))
fi
awk -F '\t' '{ n[$2]++; if ($3 == "c") c[$2]++ } END {
    printf "     comment lines of all, by section:"
    for (i = 0; i <= 16; i++) printf " %d: %d/%d", i, c[i], n[i]
    print "" }' "$tmp/code"

echo "lint: $passed passed, $failed failed, $warned warned"
[ "$failed" -eq 0 ]
