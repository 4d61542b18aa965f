#!/bin/sh
# garbage.sh PROGRAM MODEL WORK - runs the example program, built with sanitizers, on damaged copies of a model folder.
# It must refuse what cannot be read, with a message, and never trip a sanitizer, crash or hang.
LC_ALL=C; export LC_ALL
program=$1; model=$2; work=$3
ASAN_OPTIONS=exitcode=99; UBSAN_OPTIONS=exitcode=99; export ASAN_OPTIONS UBSAN_OPTIONS
cases=0; bad=0

# try NAME WANT: WANT is refuse, or any for damage that may still leave a model (which then may run out its 3 s).
try() {
    cases=$((cases + 1))
    timeout 3 "$program" --demo "$work/m" >"$work/out" 2>&1 </dev/null
    status=$?
    verdict=ok
    [ $status -ge 99 ] && [ $status -ne 124 ] && verdict="status $status"
    [ "$2" = refuse ] && { [ $status -eq 0 ] || [ $status -eq 124 ]; } && verdict="not refused, status $status"
    [ "$2" = refuse ] && [ ! -s "$work/out" ] && verdict="refused without a word"
    grep -q -E 'runtime error|Sanitizer' "$work/out" && verdict="sanitizer report"
    [ "$verdict" = ok ] || { bad=$((bad + 1)); echo "$1: $verdict"; tail -n 20 "$work/out"; }
}
fresh() { rm -rf "$work/m"; mkdir -p "$work/m"; cp "$model"/* "$work/m/"; chmod -R u+w "$work/m"; }
# poke FILE OFFSET BYTES: overwrites; BYTES as for printf.
# shellcheck disable=SC2059
poke() { printf "$3" | dd of="$work/m/$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }

mkdir -p "$work"
rm -rf "$work/m"; try "no folder" refuse
mkdir -p "$work/m"; try "an empty folder" refuse
for f in config.json model.safetensors; do
    fresh; rm "$work/m/$f"; try "no $f" refuse
    fresh; : >"$work/m/$f"; try "empty $f" refuse
    fresh; echo '{' >"$work/m/$f"; try "$f is one brace" refuse
    fresh; head -c 4096 "$model/model.safetensors" | tail -c 3000 >"$work/m/$f"; try "$f is noise" refuse
    fresh; awk 'BEGIN { while (i++ < 100000) printf "[" }' >"$work/m/$f"; try "$f is 100000 brackets" refuse
done
for n in 1 7 8 9 100 5000 100000; do
    fresh; head -c $n "$model/model.safetensors" >"$work/m/model.safetensors"; try "model cut after $n bytes" refuse
done
for n in 1 50 200; do
    fresh; head -c $n "$model/config.json" >"$work/m/config.json"; try "config cut after $n bytes" refuse
done
# The header's length: huge, negative, past the end, zero, one too short.
fresh; poke model.safetensors 0 '\377\377\377\377\377\377\377\377'; try "header length 2^64-1" refuse
fresh; poke model.safetensors 0 '\377\377\377\377\377\377\377\177'; try "header length 2^63-1" refuse
fresh; poke model.safetensors 0 '\000\000\000\000\001\000\000\000'; try "header length 2^32" refuse
fresh; poke model.safetensors 0 '\000\000\000\000\000\000\000\000'; try "header length 0" refuse
fresh; poke model.safetensors 0 '\001'; try "header length changed" refuse
# The sizes in the config, one at a time; left out are the numbers that are no sizes (eps, theta).
for v in 0 -1 1 3 7 99999999 2147483647 4294967296 9223372036854775807 1e99 null '"x"' '[]'; do
    for n in 1 2 3 4 5 6 7 10 11 13; do
        fresh
        awk -v n=$n -v v="$v" '{ while (match($0, /:[ ]*-?[0-9][0-9.e-]*/)) {
            c++; printf "%s%s", substr($0, 1, RSTART - 1), c == n ? ": " v : substr($0, RSTART, RLENGTH)
            $0 = substr($0, RSTART + RLENGTH) } print }' "$model/config.json" >"$work/m/config.json"
        try "config.json: number $n is $v" any
    done
done
for at in 10 20 30 40 60 80 100 150 200 300 500 800 1200; do
    for b in '\000' '"' '}' '9' '\377'; do fresh; poke model.safetensors $at "$b"; try "model byte $at is $b" any; done
done
echo "$cases damaged copies: $((cases - bad)) passed, $bad failed"
[ $bad -eq 0 ]
