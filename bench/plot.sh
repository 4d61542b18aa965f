#!/bin/sh
# plot.sh DIR FILE.json.. - draws the JSON of bench.c (and peer_torch.py) as SVG, with gnuplot:
#   DIR/decode.svg        milliseconds of one token against the keys in the cache, a panel a shape
#   DIR/prefill.svg       milliseconds of all tokens against their number, a panel a shape
#   DIR/decode-cost.svg   sparse decode of S1: microseconds a token and what they go into; times faster than full
# Full and sparse, next to the limit of full attention: its bytes at the read bandwidth (decode), its multiply-adds at
# the peak (prefill), each as measured around the case. Keys of one type, PLOT_TYPE (bf16 unless set). Of several thread
# counts PLOT_THREADS, unless set the largest; of several levels the best. Reads what bench.c writes: one object a line.
LC_ALL=C; export LC_ALL
command -v gnuplot >/dev/null 2>&1 || { echo "plot.sh: SKIP, gnuplot is not installed"; exit 0; }
[ $# -ge 2 ] || { echo "usage: [PLOT_TYPE=bf16] [PLOT_THREADS=N] plot.sh DIR FILE.json.."; exit 2; }
dir=$1; shift
mkdir -p "$dir" || exit 2
tmp=${TMPDIR:-/tmp}/ssa-plot.$$
mkdir "$tmp" || exit 2
trap 'rm -rf "$tmp"' EXIT
type=${PLOT_TYPE:-bf16}

# Rows: phase shape series keys ms threads limit_ms level bound_ms, one a case. Series: full, sparse, sparse32 (f32
# pooled keys beside 16-bit keys), select, torch. limit_ms: the whole limit; bound_ms: by reading in a decode, by
# multiply-adds in a prefill.
awk -v type="$type" '
function field(name,   s) {
    if (!match($0, "\"" name "\": *(\"[^\"]*\"|[-+.0-9e]+)")) return ""
    s = substr($0, RSTART, RLENGTH); sub(/^"[^"]*": */, "", s); gsub(/"/, "", s); return s
}
/"mode":/ && field("type") == type && (field("phase") == "prefill" || field("phase") == "decode") {
    if (field("phase") == "prefill" && field("pool") ~ /f/) next        # pooled keys kept: not drawn
    series = field("mode")
    if (field("impl") ~ /^torch/) series = "torch"
    else if (series == "sparse" && type != "f32" && field("pool") == "f32") series = "sparse32"
    print field("phase"), field("case"), series, field("n_kv"), field("ms"), field("threads"), field("limit_ms") + 0, \
          field("level"), field(field("phase") == "prefill" ? "peak_ms" : "read_ms") + 0
}' "$@" >"$tmp/all"
[ -s "$tmp/all" ] || { echo "plot.sh: no cases with $type keys in $*"; exit 1; }
threads=${PLOT_THREADS:-$(awk '$6 + 0 > most { most = $6 + 0 } END { print most + 0 }' "$tmp/all")}
awk -v t="$threads" '$6 == t' "$tmp/all" >"$tmp/rows"
[ -s "$tmp/rows" ] || { echo "plot.sh: no cases with $threads threads in $*"; exit 1; }
machine=$(sed -n 's/.*"machine": *"\([^"]*\)", "compiler".*/\1/p' "$@" | sed "s/['\"]//g; 1q")
level=$(awk '$3 != "torch" { n = index("scalar avx2 avx512 amx neon simd128", $8); if (n > most) { most = n; l = $8 } }
             END { print l }' "$tmp/rows")
[ "$threads" = 1 ] && on="1 thread" || on="$threads threads"
about="$type keys, $level, $on${machine:+, $machine}"

# points PHASE SHAPE SERIES COLUMN FILE: "keys value" in FILE, ascending; column 5 ms, 7 limit, 9 bound. A later row of
# a place, that of a better level, replaces an earlier one; of PyTorch's ways the faster counts. Fails if there is none.
points() {
    awk -v p="$1" -v s="$2" -v l="$3" -v c="$4" '$1 == p && $2 == s && $3 == l && $c > 0 {
        if (l != "torch" || !($4 in v) || $c < v[$4]) v[$4] = $c
    } END { for (n in v) print n, v[n] }' "$tmp/rows" | sort -n >"$5"
    [ -s "$5" ]
}
# curve FILE SCALE SERIES: one more curve of $plot.  legend SERIES TITLE: one more line of $key, which has no points
curve() { plot="$plot${plot:+, }'$1' using 1:(\$2*$2) with $(style "$3") notitle"; }
legend() { key="$key, NaN with $(style "$1") title '$2'"; }
# span FILE..: the axes that hold all points, y from a power of ten to another
span() {
    cat "$@" | awk 'NR == 1 { l = r = $1; lo = hi = $2 }
        { if ($1 < l) l = $1; if ($1 > r) r = $1; if ($2 < lo) lo = $2; if ($2 > hi) hi = $2 }
        END {
            for (a = 1; a > lo; a /= 10); for (; a * 10 <= lo; a *= 10); for (b = a * 10; b < hi; b *= 10);
            printf "set xrange [%.9g:%.9g]; set yrange [%.9g:%.9g]\n", l * 0.999, r * 1.001, a, b
        }'
}

# Colours that differ for every kind of colour vision (Okabe and Ito); also told apart by mark and dash.
style() { # SERIES
    case $1 in
        full)     echo "linespoints lw 2 pt 7 ps 0.6 lc rgb '#0072b2'";;
        sparse)   echo "linespoints lw 2 pt 5 ps 0.6 lc rgb '#d55e00'";;
        sparse32) echo "linespoints lw 2 pt 4 ps 0.7 lc rgb '#e69f00'";;
        select)   echo "linespoints lw 2 pt 9 ps 0.7 lc rgb '#009e73'";;
        torch)    echo "linespoints lw 1.5 pt 13 ps 0.7 lc rgb '#cc79a7'";;
        limit)    echo "lines lw 2 dt (6,4) lc rgb '#666666'";;
    esac
}

start() { # FILE PANELS ROWS TITLE; the legend, of so many rows, stands below all panels
    echo "set terminal svg size $(($2 * 390 + 20)),$((400 + 18 * $3)) font 'sans-serif,12' background 'white'"\
         "noenhanced; set output '$1'"
    printf 'set multiplot layout 1,%d title "%s\\n%s"\n' "$2" "$4" "$about"
    echo "set logscale x 2; set logscale y; set format y '%.9g'; set mytics 1; set tics nomirror"
    echo "set xtics ('512' 512, '1k' 1024, '2k' 2048, '4k' 4096, '8k' 8192, '16k' 16384, '32k' 32768, '64k' 65536,"\
         "'128k' 131072, '256k' 262144, '512k' 524288, '1M' 1048576) rotate by 45 right"
    echo "set grid lc rgb '#dddddd' lt 1; set border 3; set lmargin 11; set rmargin 2; set bmargin $((4 + $3))"
    echo "set key at screen 0.5,0.015 center bottom maxcols 1 Left reverse samplen 3"
}

for phase in decode prefill; do
    shapes=$(awk -v p=$phase '$1 == p && $3 ~ /full|sparse/ && !n[$2]++ { print $2 }' "$tmp/rows")
    [ -n "$shapes" ] || continue
    if [ $phase = decode ]
    then title="Decode: time of one token"; x="keys in the cache"; bound="limit of full: reading its keys and values"
    else title="Prefill: time of all tokens"; x="tokens"; bound="limit of full: its multiply-adds"
    fi
    f=$tmp/$phase
    key=
    for s in $shapes; do
        for c in full sparse torch; do points $phase "$s" $c 5 "$f-$c-$s" || rm "$f-$c-$s"; done
        points $phase "$s" full 9 "$f-limit-$s" || rm "$f-limit-$s"
    done
    rows=0
    for c in full sparse torch limit; do
        case $c in full) name=full;; sparse) name=sparse;; torch) name="PyTorch, full";; limit) name=$bound;; esac
        ls "$f-$c-"* >"$tmp/log" 2>&1 && legend $c "$name" && rows=$((rows + 1))
    done
    {
        start "$dir/$phase.svg" "$(echo "$shapes" | wc -w)" $rows "$title"
        span "$f"-*
        echo "set xlabel '$x'; set ylabel 'milliseconds' offset 1"
        for s in $shapes; do
            plot=
            for c in limit torch full sparse; do
                [ -s "$f-$c-$s" ] && curve "$f-$c-$s" 1 $c
            done
            echo "set title '$s'"
            echo "plot $plot$key"
            key=
        done
        echo "unset multiplot"
    } >"$tmp/gp"
    gnuplot "$tmp/gp" && echo "$dir/$phase.svg"
done

# From 4k keys on: below that, much of the cache is selected.
f=$tmp/cost
awk '$4 >= 4096' "$tmp/rows" >"$tmp/long" && mv "$tmp/long" "$tmp/rows"
if points decode S1 sparse 5 "$f-sparse"; then
    plot=; key=
    curve "$f-sparse" 1000 sparse; legend sparse "sparse, pooled keys in $type"
    points decode S1 sparse32 5 "$f-sparse32" && curve "$f-sparse32" 1000 sparse32 &&
        legend sparse32 "sparse, pooled keys in f32"
    points decode S1 select 5 "$f-select" && curve "$f-select" 1000 select &&
        legend select "of which choosing the blocks"
    points decode S1 sparse 7 "$f-limit" && curve "$f-limit" 1000 limit && legend limit "limit of sparse"
    points decode S1 full 5 "$f-full" && panels=2 || panels=1
    {
        start "$dir/decode-cost.svg" "$panels" 4 "Sparse decode of S1, pooled keys kept"
        span "$f-sparse" | sed 's/; set yrange.*//'
        echo "set xlabel 'keys in the cache'; set ylabel 'microseconds a token'; set title 'Cost of a token'"
        echo "plot $plot$key"
        if [ "$panels" = 2 ]; then
            plot=
            for c in sparse sparse32; do
                awk 'NR == FNR { t[$1] = $2; next } $1 in t { print $1, t[$1] / $2 }' "$f-full" "$f-$c" >"$f-$c-ratio"
                [ -s "$f-$c-ratio" ] && curve "$f-$c-ratio" 1 $c
            done
            echo "unset logscale y; set yrange [0:*]; set ylabel 'times'; set title 'Faster than full attention'"
            [ -n "$plot" ] && echo "plot $plot"
        fi
        echo "unset multiplot"
    } >"$tmp/gp"
    gnuplot "$tmp/gp" && echo "$dir/decode-cost.svg"
fi
