#!/bin/sh
# check.sh - the build matrix of ssa.h: compilers, languages, optimisation levels, options, linking, sanitizers, other
# CPUs and systems under emulators.
# Prints one line a step (ok, FAIL with the end of its log, or SKIP with the reason), then the counts. It works on a
# copy of the sources, made when it starts, in build/check; nothing else is written. Environment: JOBS (2) steps at a
# time, COMPILERS and CXX_COMPILERS (what to try), FULL. Each step is a small script of its own: the line of one that
# failed says how to repeat it.
#
# FULL=1 takes over an hour: sanitizers, valgrind, emulators and the emulated level run all cases of all groups of
# tests, where else they run some groups, or a part of the cases (`test -b`).
#
# shellcheck disable=SC2011,SC2012,SC2013   # file names here hold no blanks
LC_ALL=C; export LC_ALL

# ---- one step, run by xargs: check.sh --step FILE. Line 1 of FILE is its name; exit status 77 means skipped ----------
if [ "$1" = --step ]; then
    name=$(sed -n '1s/^# //p' "$2"); log=$2.log
    limit=; command -v timeout >/dev/null 2>&1 && limit='timeout 900'
    start=$(date +%s)
    $limit sh -ex "$2" >"$log" 2>&1 </dev/null
    status=$?
    times >"$log.times"                               # its second line: CPU time of the processes that ended
    cpu=$(awk 'NR == 2 { split($1 "m" $2, t, "[ms]+"); printf "%d", 60 * (t[1] + t[3]) + t[2] + t[4] }' "$log.times")
    took="$(($(date +%s) - start)) s, CPU $cpu s"
    last=$(grep -v '^+ ' "$log" | tail -n 1)          # lines with + are the trace of sh -x
    case $status in
    0)  case $last in *passed,*failed*) name="$name: $last";; esac
        echo "ok   $name ($took)";;
    77) echo "SKIP $name: $last"; : >"$2.skipped"; exit 0;;
    *)  # One write, so that two steps that fail together do not mix their lines.
        printf '%s\n' "FAIL $name (status $status, $took): cd $PWD && sh -ex $2
$(tail -n 25 "$log" | cut -c 1-300 | sed 's/^/     /')"
        : >"$2.failed"; exit 0;;
    esac
    : >"$2.passed"
    exit 0
fi

root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
cd "$root" || exit 2
rm -rf build/check
mkdir -p build/check || exit 2
cp -R ssa.h README.md Makefile tests examples bench .ci build/check/ || exit 2
cd build/check || exit 2
dir=out
mkdir -p $dir/steps || exit 2
JOBS=${JOBS:-2}
OMP_WAIT_POLICY=passive; export OMP_WAIT_POLICY      # steps share the cores: a waiting thread must not spin
make=${MAKE:-make}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES       # `make -j check` must not reach into the steps' own makes

# step NAME: the script is standard input. skip NAME REASON: a step that cannot be run here.
count=0
step() { count=$((count + 1)); { echo "# $1"; cat; } >"$dir/steps/$(printf %03d $count)"; }
skip() { step "$1" <<END
echo "$2"; exit 77
END
}
has() { command -v "$1" >/dev/null 2>&1; }

missing=
cc_all=;  for c in ${COMPILERS:-gcc clang clang-19}; do
    if has "$c"; then cc_all="$cc_all $c"; else missing="$missing $c"; fi; done
cxx_all=; for c in ${CXX_COMPILERS:-g++ clang++ clang++-19}; do
    if has "$c"; then cxx_all="$cxx_all $c"; else missing="$missing $c"; fi; done
first() { echo "$1"; }
last() { for l; do :; done; echo "$l"; }
# shellcheck disable=SC2086
CC1=$(first $cc_all) CCN=$(last $cc_all) CXX1=$(first $cxx_all) CXXN=$(last $cxx_all)
[ -n "$CC1" ] || { echo "check: no C compiler among ${COMPILERS:-gcc clang clang-19}"; exit 2; }

# fast CC: what -Ofast means to this compiler; newer clangs warn of the short form.
fast() { case $1 in *clang*) echo "-O3 -ffast-math";; *) echo "-Ofast";; esac; }
# openmp CC: its flag, where a whole program links.
printf '#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n' >"$dir/omp.c"
cp "$dir/omp.c" "$dir/omp.cpp"
openmp() {
    case $1 in *++*) s=$dir/omp.cpp;; *) s=$dir/omp.c;; esac
    "$1" -fopenmp -o "$dir/omp" "$s" >/dev/null 2>&1 && echo -fopenmp
}
# sanitizer CC FLAG: does it link?
sanitizer() { "$1" "$2" -o "$dir/omp" -x c - >/dev/null 2>&1 <"$dir/plain.c"; }
echo 'int main(void) { return 0; }' >"$dir/plain.c"

W="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wundef -Wdouble-promotion -Werror"
WC="-std=c11 $W -Wstrict-prototypes"
WX="-std=c++11 $W"

# ---- sources of the steps -----------------------------------------------------------------------------------------
for e in c cpp; do
    printf '#include "ssa.h"\n#include "ssa.h"\n' >"$dir/interface.$e"
    printf '#include "ssa.h"\n#define SSA_IMPLEMENTATION\n#include "ssa.h"\n' >"$dir/impl.$e"
    # One key: the output is its value, whatever the scores. Valid as C and as C++.
    cat >"$dir/use.$e" <<'END'
#include "ssa.h"
int use_ssa(void);
int use_ssa(void)
{
    float q[8] = { 1, 2, 3, 4, 4, 3, 2, 1 }, k[4] = { 1, -1, 1, -1 }, v[4] = { 1, 2, 3, 4 }, out[8] = { 0 };
    ssa_attn a = ssa_attn_default(2, 1, 4);
    int i, bad = 0;
    a.n_q = a.n_kv = 1;
    a.q.data = q; a.k.data = k; a.v.data = v; a.out.data = out;
    if (ssa_attention(&a, SSA_FULL, NULL) != SSA_OK || ssa_attention(&a, SSA_SPARSE, NULL) != SSA_OK) return 2;
    for (i = 0; i < 8; i++) bad |= out[i] < v[i % 4] * 0.999999f || out[i] > v[i % 4] * 1.000001f;
    return bad;
}
END
    { cat "$dir/use.$e"; echo 'int main(void) { return use_ssa(); }'; } >"$dir/main.$e"
    # Two of these make one program: a private copy of everything in each file.
    { printf '#define SSA_STATIC 1\n#define SSA_IMPLEMENTATION\n'; sed 's/use_ssa/use_ssa_a/g' "$dir/use.$e"
      echo 'int use_ssa_b(void);'; echo 'int main(void) { return use_ssa_a() | use_ssa_b(); }'; } >"$dir/static_a.$e"
    { printf '#define SSA_STATIC 1\n#define SSA_IMPLEMENTATION\n'
      sed 's/use_ssa/use_ssa_b/g' "$dir/use.$e"; } >"$dir/static_b.$e"
    { printf '#define SSA_HEADER_FILENAME "attention.h"\n'
      printf '#define SSA_IMPLEMENTATION\n#include "attention.h"\n'; } >"$dir/renamed.$e"
done
mkdir -p "$dir/renamed"
cp ssa.h "$dir/renamed/attention.h"
# What the interface declares, from its own text: the only names that an object may export.
sed -n 's/^SSA_API [^(]*\(ssa_[a-z0-9_]*\)(.*/\1/p' ssa.h | sort -u >"$dir/exports"

# ---- steps: the longest first, so that the short ones fill the gaps --------------------------------------------------
# What a build is for decides which tests it runs: the whole suite, run by `make test`, takes over two minutes. Behind
# -b groups run a part of their cases; `|` separates runs of one step.
finite="-b golden attention loss"                  # no NaN, no equal bits, both of which fast-math gives up
each="harness isa golden attention sparse pool loss errors checked table"
slow="-b harness isa golden pool loss errors checked"          # where a second takes 20 to 60
all="harness isa golden attention sparse pool loss invariants errors checked guard table unit select terms cache"
all="$all recipes diag"
# full TESTS MORE: what runs now: TESTS, or with FULL=1 the groups MORE, all cases.
full() { if [ -n "$FULL" ]; then echo "$2"; else echo "$1"; fi; }
# suite NAME TESTS VARIABLE=VALUE..: the tests in a build folder of their own. RUN: what goes before the program.
suite() {
    name=$1; tests=$2; shift 2; vars=
    for v; do vars="$vars '$v'"; done
    step "tests, $name" <<END
out=$dir/suite$count
$make -s BUILD=\$out $vars \$out/test
$(run_tests "\$out" "$RUN \$out/test" "$tests")
END
}
# swap NAME TESTS CC FLAGS [LINK]: the plain build's tests with an implementation made by CC with FLAGS; another
# compiler's OpenMP needs a library that the plain build's does not link.
swap() {
    threads=; [ "$3" = "$CC1" ] || threads=OPENMP=
    step "tests, $1" <<END
out=$dir/suite$count
$make -s BUILD=\$out CC=$3 IMPL_CFLAGS="$4" $threads \$out/tests/ssa_impl.o
$CC1 $(openmp "$CC1") -o \$out/test $dir/plain/tests/*.o \$out/tests/ssa_impl.o -lm ${5-}
$(run_tests "\$out" "\$out/test" "$2")
END
}
# run_tests FOLDER PROGRAM TESTS: a suite that ran nothing has not passed
run_tests() {
    echo "$3" | tr '|' '\n' | while read -r groups; do
        echo "$2 $groups >$1/log 2>&1 || { tail -n 30 $1/log; exit 1; }"
        printf '%s\n' "tail -n 1 $1/log | tr -d '\\r' | grep '^[1-9][0-9]* passed, 0 failed'"
    done
}
RUN=

# The plain build, made before any step: others take its objects.
echo "building the tests"
start=$(date +%s)
$make -s -j "$JOBS" BUILD="$dir/isa" CC="$CC1" "$dir/isa/test" || exit 1
mkdir -p "$dir/plain/tests"
cp "$dir"/isa/tests/*.o "$dir/plain/tests/"
rm "$dir/plain/tests/ssa_impl.o"
echo "built ($(($(date +%s) - start)) s)"

# The level amx: its instructions are emulated, on a CPU that has all it needs besides. Level avx512 has its form for
# bf16 on any such CPU.
unit="harness isa pool guard table unit hosts"
E="-include tests/amx_emulated.h -DSSA__B16_ALWAYS"
fast_san="-O1 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all"
if grep -q avx512_bf16 /proc/cpuinfo 2>/dev/null; then
    suite "amx emulated, $CC1" "$(full "$unit|-b attention sparse invariants golden select cache terms" "$all")" \
          CC="$CC1" CPPFLAGS="$E"
    if [ -z "$FULL" ]; then
        : # the fuzzer runs that level under the same sanitizers
    elif sanitizer "$CCN" -fsanitize=address,undefined; then
        suite "amx emulated, address and undefined sanitizers, $CCN" \
              "$all" CC="$CCN" CPPFLAGS="$E" \
              CFLAGS="$fast_san -fsanitize=address,undefined"
    else
        skip "tests, amx emulated, address and undefined sanitizers" "$CCN does not link them"
    fi
else
    skip "tests, amx emulated" "the CPU has no AVX512_BF16: the level amx is not tested"
    skip "tests, amx emulated, address and undefined sanitizers" "the CPU has no AVX512_BF16"
fi

# Sanitizers and valgrind: no report, and nothing that hides one. The address sanitizer also finds leaks.
# The newest clang: gcc takes five times as long to compile this.
san=
for c in $cc_all; do sanitizer "$c" -fsanitize=address,undefined && san=$c; done
if [ -n "$san" ]; then
    S="$fast_san -fsanitize=address,undefined"
    # Without lm, which would take as long again: the next step feeds that code what it was not made for. The fuzzer has
    # the highest levels, which take as long to compile as all else.
    suite "address and undefined sanitizers, leaks, $san" \
          "$(full "loss errors checked|-b golden pool sparse table recipes" "$all")" \
          CC="$san" CFLAGS="$S" CPPFLAGS="$(full -DSSA_NO_AVX512=1 "")"
    # With FULL; else the fuzzer alone feeds damaged files to the readers.
    [ -z "$FULL" ] ||
    step "examples on damaged files, address and undefined sanitizers" <<END
$make -s BUILD=$dir/garbage CC="$san" CFLAGS="$S" $dir/garbage/ssa_lm
sh tests/garbage.sh $dir/garbage/ssa_lm examples/tiny-ssa $dir/garbage/files
END
else
    skip "tests, address and undefined sanitizers" "no compiler links them"
    skip "examples on damaged files" "no compiler links the sanitizers"
fi
tsan=""; msan=""
for c in $cc_all; do sanitizer "$c" -fsanitize=memory && msan=$c; done
if [ -n "$msan" ]; then
    suite "memory sanitizer, scalar and avx2, $msan" \
          "$(full "-b golden attention sparse pool loss table" "$all")" CC="$msan" OPENMP= \
          CPPFLAGS=-DSSA_NO_AVX512=1 CFLAGS="-O1 -g1 -fsanitize=memory -fno-sanitize-recover=all"
else
    skip "tests, memory sanitizer" "no compiler links it"
fi
# A callback that starts threads, and OpenMP where clang's tool for it is there: it tells the sanitizer of barriers.
archer=$(ls /usr/lib/llvm-*/lib/libarcher.so 2>/dev/null | tail -n 1)
for c in $cc_all; do case $c in clang*) sanitizer "$c" -fsanitize=thread && tsan=$c;; esac; done
tsan_openmp=; [ -n "$archer" ] && [ -n "$tsan" ] && tsan_openmp=$(openmp "$tsan")
if [ -n "$tsan" ]; then
    RUN="env OMP_NUM_THREADS=3 TSAN_OPTIONS=ignore_noninstrumented_modules=1,halt_on_error=1"
    RUN="$RUN OMP_TOOL_LIBRARIES=$archer"
    suite "thread sanitizer, ${tsan_openmp:+OpenMP, }callback, phases, $tsan" \
          "$(full "-b invariants golden attention" "$all")" CC="$tsan" \
          CPPFLAGS=-DSSA_NO_AVX512=1 CFLAGS="-O1 -g1 -fsanitize=thread" OPENMP="$tsan_openmp"
    RUN=
    [ -n "$tsan_openmp" ] || skip "tests, thread sanitizer, OpenMP" "no libarcher.so, or no OpenMP of clang's"
else
    skip "tests, thread sanitizer" "no clang links it"
fi
leaks="--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite"
if has valgrind; then
    step "tests, valgrind, scalar and avx2" <<END
out=$dir/suite$count
mkdir -p \$out
$(run_tests "\$out" "valgrind -q --error-exitcode=9 $leaks $dir/isa/test" \
            "$(full "-b harness golden pool errors checked" "$all")")
END
else
    skip "tests, valgrind" "valgrind is not installed"
fi

step "fuzzing, any call, any numbers, any file, 20 s each" <<END
out=$dir/suite$count
mkdir -p \$out
TIME=20 JOBS=1 BUILD=\$out sh tests/fuzz.sh >\$out/log 2>&1 || { tail -n 30 \$out/log; exit 1; }
if grep '^SKIP' \$out/log; then exit 77; fi
tail -n 1 \$out/log
END

# ---- other CPUs and systems: the header with all warnings, then the tests --------------------------------------------
# world NAME CC TOOL TESTS VARIABLE=VALUE..: the tests built by CC for NAME and run by TOOL ("": by the machine itself);
# what is missing is said. WF: flags for the header alone; exe: what the linker appends to a program's name.
WF=""; exe=""
world() {
    name=$1; compiler=$2; tool=$3; tests=$4; shift 4; vars=
    for v; do vars="$vars '$v'"; done
    if ! has "$compiler"; then skip "tests, $name" "$compiler is not installed"; return; fi
    if [ -n "$tool" ] && ! has "${tool%% *}"; then
        runs="echo 'only compiled: ${tool%% *} is not installed'; exit 77"
    else runs=$(run_tests "\$out" "$tool \$out/test$exe" "$tests"); fi
    step "tests, $name" <<END
out=$dir/suite$count
mkdir -p \$out
$compiler $WC $WF -O2 -I. -c $dir/impl.c -o \$out/impl.o
$make -s BUILD=\$out CC=$compiler OPENMP= $vars \$out/test
$runs
END
}
s="-O1 -static"
world "aarch64" aarch64-linux-gnu-gcc qemu-aarch64 "$(full "$slow table halves" "$each halves")" CFLAGS="$s"
world "32-bit ARM" arm-linux-gnueabihf-gcc qemu-arm "$(full "$slow" "$each")" CFLAGS="$s"
world "RISC-V 64" riscv64-linux-gnu-gcc qemu-riscv64 "$(full "$slow" "$each")" CFLAGS="$s"
# Standard C makes gcc compute in double there, which its warning then takes for an oversight.
WF=-Wno-double-promotion
world "s390x, big-endian" s390x-linux-gnu-gcc qemu-s390x "$(full "$slow" "$each")" CFLAGS="$s"
WF="-msse2 -mfpmath=sse"
emulator=; more=" table guard"
echo 'int main(void) { return 0; }' >"$dir/native.c"
if has i686-linux-gnu-gcc; then # some kernels run no 32-bit programs
    { i686-linux-gnu-gcc -static -o "$dir/native" "$dir/native.c" && "$dir/native"; } 2>/dev/null ||
        { emulator=qemu-i386; more=; }
fi
world "32-bit x86" i686-linux-gnu-gcc "$emulator" "$(full "$slow$more" "$each guard")" CFLAGS="$s $WF"
WF=
wasm="-sINITIAL_MEMORY=67108864 -sALLOW_MEMORY_GROWTH=1 -sNODERAWFS=1 -sWASM_ASYNC_COMPILATION=0"
world "WebAssembly" emcc node "$(full "-b $each" "$each")" CFLAGS=-O1 LDLIBS="-lm $wasm"
WF=-msimd128
world "WebAssembly, scalar and simd128" emcc node "$(full "-b $each guard halves invariants" "$all halves")" \
      CFLAGS="-O1 $WF" LDLIBS="-lm $wasm"
WF=
if has wine; then WINEPREFIX=$root/build/check/$dir/wine WINEDEBUG=-all; export WINEPREFIX WINEDEBUG; fi
exe=.exe
world "Windows, mingw-w64 and wine" x86_64-w64-mingw32-gcc wine "$(full "-b $each guard" "$each guard")" CFLAGS="$s"
exe=
# Microsoft's spelling, through clang: as clang-cl sees the header, and, without clang's own macro, as cl would.
mkdir -p "$dir/msvc"
cat >"$dir/msvc/string.h" <<'END'
#pragma once
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
void *memcpy(void *, const void *, size_t), *memmove(void *, const void *, size_t), *memset(void *, int, size_t);
int memcmp(const void *, const void *, size_t), strcmp(const char *, const char *);
void *malloc(size_t), free(void *);
char *getenv(const char *);
#ifdef __cplusplus
}
#endif
END
cp "$dir/msvc/string.h" "$dir/msvc/stdlib.h"
cl=$(for c in clang-cl clang-cl-19; do has $c && echo $c; done | tail -n 1)
if [ -n "$cl" ]; then
    step "compile: $cl, x86-64, 32-bit x86, ARM64; without __clang__" <<END
cl="$cl /clang:-ffreestanding /W4 /WX -I. -I$dir/msvc"
for e in c cpp; do
    for t in x86_64 i686 aarch64; do
        \$cl --target=\$t-pc-windows-msvc -fsyntax-only $dir/impl.\$e
    done
    \$cl --target=x86_64-pc-windows-msvc -U__clang__ /clang:-march=sapphirerapids /c /Fo$dir/msvc/impl.obj $dir/impl.\$e
    \$cl --target=x86_64-pc-windows-msvc -U__clang__ /DSSA_NO_SIMD=1 /c /Fo$dir/msvc/impl.obj $dir/impl.\$e
done
END
else
    skip "compile: clang-cl" "clang-cl is not installed"
fi

# ---- compilers, levels, languages ------------------------------------------------------------------------------------
suite "without OpenMP, $CCN" "-b golden attention invariants errors table hosts" CC="$CCN" OPENMP=
swap "implementation $(fast "$CC1") -march=native, $CC1" "$finite" "$CC1" "$(fast "$CC1") -march=native"
swap "implementation $(fast "$CCN"), $CCN" "$finite" "$CCN" "$(fast "$CCN")"
swap "implementation -Og, $CC1" "-b golden sparse table" "$CC1" -Og
swap "implementation -Os, $CCN" "-b golden sparse table" "$CCN" -Os
if [ -n "$CXX1" ]; then
    swap "implementation -O3 as C++11, $CC1" "-b golden sparse pool table" "$CC1" "-O3 -x c++ -std=c++11" -lstdc++
else
    swap "implementation -O3, $CC1" "-b golden sparse pool table" "$CC1" -O3
fi
swap "implementation SSA_NO_SIMD, $CC1" "-b golden attention pool" "$CC1" -DSSA_NO_SIMD=1
step "tests, SSA_ISA=scalar, avx2, nonsense in the environment" <<END
for isa in scalar avx2 nonsense; do
    SSA_ISA=\$isa $dir/isa/test -b harness isa golden pool loss >$dir/isa/\$isa ||
        { tail -n 30 $dir/isa/\$isa; exit 1; }
done
tail -n 1 $dir/isa/scalar
END
for c in $cc_all; do
    case $c in clang*) lld=ld.lld${c#clang};; *) lld=;; esac
    if [ -n "$lld" ] && ! has "$lld"; then skip "link-time optimisation, $c" "$lld is not installed"; continue; fi
    step "link-time optimisation, $c" <<END
$c $WC -O1 -flto ${lld:+--ld-path=$(command -v "$lld")} -I. $dir/main.c $dir/impl.c -o $dir/lto-$c
$dir/lto-$c
END
done

for c in $missing; do
    skip "compile with $c" "$c is not installed"
done
# gcc sees more or less as it optimises; clang's warnings come before its optimiser, so -O0 shows them all. What an
# object exports is what section 3 declares; what a C++ compiler adds for exceptions through OpenMP regions is not the
# header's.
for opt in -O3 -O0; do
    for c in $cc_all $cxx_all; do
        case $c$opt in *clang*-O3) continue;; esac
        case $c in *++*) e=cpp std="C++11" w=$WX;; *) e=c std="C11" w=$WC;; esac
        step "compile: $c, $std, $opt, no unasked warning or name" <<END
$c $w $opt $(openmp "$c") -I. -c $dir/impl.$e -o $dir/$c$opt.o
nm -g $dir/$c$opt.o | awk '\$(NF-1) ~ /^[A-TV-Z]\$/ { print \$NF }' | grep -v -E '^(DW[.]ref[.]|__clang_call_)' \
    | sort >$dir/nm-$c$opt
diff $dir/exports $dir/nm-$c$opt
$c $w -O2 -I. -c $dir/interface.$e -o $dir/$c-interface.o
test -z "\$(nm $dir/$c-interface.o | grep ssa_)"
END
    done
done
step "compile: the newer standards" <<END
for c in $cc_all; do for std in c17 c2x; do \$c -std=\$std $W -fsyntax-only -I. $dir/impl.c; done; done
for c in $cxx_all; do for std in 14 17 20; do \$c -std=c++\$std $W -fsyntax-only -I. $dir/impl.cpp; done; done
END

# Every 0/1 option that the header itself lists, so that a new one is tried unasked.
both() {    # both NAME FLAGS: the first C compiler as C, the last C++ compiler as C++, whose warnings need no code
    step "$1: $CC1 C11${CXXN:+, $CXXN C++11}" <<END
$CC1 $WC -O0 -I. $2 -c $dir/impl.c -o $dir/option$count.o
${CXXN:+$CXXN $WX -fsyntax-only -I. $2 $dir/impl.cpp}
END
}
for o in $(sed -n 's/^#ifndef \(SSA_[A-Z0-9_]*\) .*/\1/p' ssa.h); do
    case $o in SSA_STATIC | SSA__* | SSA_H) ;; *) both "option $o" "-D$o=1";; esac
done
both "options SSA_NO_AVX2 and SSA_NO_AVX512" "-DSSA_NO_AVX2=1 -DSSA_NO_AVX512=1"
both "options SSA_MALLOC and SSA_FREE" "-include $dir/alloc.h"
cat >"$dir/alloc.h" <<'END'
#include <stddef.h>
static void *my_malloc(size_t n) { (void)n; return NULL; }
static void my_free(void *p) { (void)p; }
#define SSA_MALLOC(size) my_malloc(size)
#define SSA_FREE(p) my_free(p)
END
both "option SSA_ASSERT" "-include assert.h -DSSA_ASSERT=assert"
step "option SSA_STATIC in two files: C11 and C++11" <<END
for c in $CC1; do
    \$c $WC -O0 -I. $dir/static_a.c $dir/static_b.c -o $dir/static-c
    $dir/static-c
    \$c $WC -O0 -I. -c $dir/static_b.c -o $dir/static_b.o
    test -z "\$(nm -g $dir/static_b.o | grep ' [A-TV-Z] ssa_')"
done
for c in $CXXN; do
    \$c $WX -O0 -I. $dir/static_a.cpp $dir/static_b.cpp -o $dir/static-x
    $dir/static-x
done
END
step "a renamed header with SSA_HEADER_FILENAME" <<END
$CC1 $WC -O0 -I$dir/renamed -c $dir/renamed.c -o $dir/renamed.o
nm $dir/renamed.o | grep -q ' T ssa_attention'
${CXXN:+$CXXN $WX -O0 -I$dir/renamed -c $dir/renamed.cpp -o $dir/renamedx.o}
END

step "link: caller and implementation in C, without libm" <<END
for c in $CC1 $CCN; do
    \$c $WC -O0 -I. $dir/main.c $dir/impl.c -o $dir/link-c
    $dir/link-c
done
END
if [ -n "$CXX1" ]; then
    step "link: C caller, C++ implementation, without libstdc++" <<END
$CXX1 $WX -O0 -I. -fno-exceptions -c $dir/impl.cpp -o $dir/link1.o
$CC1 $WC -O0 -I. $dir/main.c $dir/link1.o -o $dir/link1
$dir/link1
END
    step "link: C++ caller, C implementation" <<END
$CC1 $WC -O0 -I. -c $dir/impl.c -o $dir/link2.o
$CXXN $WX -O0 -I. $dir/main.cpp $dir/link2.o -o $dir/link2
$dir/link2
END
else
    skip "link: C and C++ together" "no C++ compiler"
fi
step "without SIMD, OpenMP, malloc, getenv: needs only mem* functions" <<END
$CC1 $WC -O1 -fno-stack-protector -DSSA_NO_SIMD=1 -DSSA_NO_OPENMP=1 -DSSA_NO_MALLOC=1 -DSSA_NO_GETENV=1 -I. \
    -c $dir/impl.c -o $dir/bare.o
nm -u $dir/bare.o
test -z "\$(nm -u $dir/bare.o | awk '{ print \$NF }' | grep -v -E '^(mem(cpy|set|move|cmp)|_GLOBAL_OFFSET_TABLE_)\$')"
END

if has tcc; then
    step "tcc: neither gcc nor clang" <<END
tcc -Wall -Werror -I. $dir/main.c $dir/impl.c -o $dir/tcc
$dir/tcc
END
else
    skip "a compiler that is neither gcc nor clang" "tcc is not installed"
fi
if has bmake; then
    step "bmake builds as make does" <<END
bmake BUILD=$dir/bmake help
bmake BUILD=$dir/bmake CC=$CC1 CFLAGS=-O0 $dir/bmake/quickstart
$dir/bmake/quickstart
END
else
    skip "another make" "bmake is not installed"
fi
step "make install, and a program against the installed copy" <<END
$make -s BUILD=$dir/install DESTDIR=$root/build/check/$dir/root PREFIX=/usr install
cd $dir/root
$CC1 -Iusr/include ../main.c ../impl.c -o ../installed
../installed
END
step "examples/inspect: every distance within its bound, and a drawing" <<END
$make -s BUILD=$dir/inspect CC=$CC1 $dir/inspect/inspect
$dir/inspect/inspect -n 400 -o $dir/inspect/blocks.svg | grep 'within the bound'
if command -v xmllint >/dev/null; then xmllint --noout $dir/inspect/blocks.svg; fi
tail -n 1 $dir/inspect/blocks.svg | grep '^</svg>\$'
$dir/inspect/inspect -p -t -k 3 -o $dir/inspect/own.svg \
    "A text of one's own: so long that a query may not attend to all of it" >$dir/inspect/own
grep -c '<rect.*opacity' $dir/inspect/own.svg
END
step "lint" <<END
sh tests/lint.sh
END

# ---- run -------------------------------------------------------------------------------------------------------------
ls "$dir"/steps/[0-9]* | xargs -P "$JOBS" -n 1 sh tests/check.sh --step
n() { ls "$dir"/steps/*."$1" 2>/dev/null | wc -l; }
failed=$(n failed)
lost=$((count - $(n passed) - failed - $(n skipped)))      # a step that left no verdict has failed
echo "$(($(n passed))) passed, $((failed + lost)) failed, $(($(n skipped))) skipped"
[ $((failed + lost)) -eq 0 ]
