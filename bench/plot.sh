#!/bin/sh
# plot.sh DIR FILE.json.. - draws time against context from the JSON of bench.c (and peer_torch.py) as SVG, with
# gnuplot: DIR/decode.svg (one step) and DIR/prefill.svg (all tokens), a panel a shape, both axes logarithmic, every
# key/value type in the files. Of several thread counts the largest is drawn, of several levels the last. Reads what
# bench.c writes: one object a line.
LC_ALL=C; export LC_ALL
command -v gnuplot >/dev/null 2>&1 || { echo "plot.sh: SKIP, gnuplot is not installed"; exit 0; }
[ $# -ge 2 ] || { echo "usage: plot.sh DIR FILE.json.."; exit 2; }
dir=$1; shift
mkdir -p "$dir" || exit 2
tmp=${TMPDIR:-/tmp}/ssa-plot.$$
mkdir "$tmp" || exit 2
trap 'rm -rf "$tmp"' EXIT

# rows: phase shape series n_kv ms threads, one a case
awk '
function field(name,   s) {
    if (!match($0, "\"" name "\": *(\"[^\"]*\"|[-+.0-9e]+)")) return ""
    s = substr($0, RSTART, RLENGTH); sub(/^"[^"]*": */, "", s); gsub(/"/, "", s); return s
}
/"mode":/ && (field("phase") == "prefill" || field("phase") == "decode") && field("mode") != "select" {
    print field("phase"), field("case"), field("impl") "," field("mode") "," field("type"), field("n_kv"), field("ms"),
          field("threads")
}' "$@" >"$tmp/rows"
[ -s "$tmp/rows" ] || { echo "plot.sh: no cases in $*"; exit 1; }

for phase in decode prefill; do
    awk -v p=$phase '$1 == p && $6 + 0 > most { most = $6 + 0 } END { print most + 0 }' "$tmp/rows" >"$tmp/most"
    most=$(cat "$tmp/most")
    [ "$most" -gt 0 ] || continue
    shapes=$(awk -v p=$phase -v t="$most" '$1 == p && $6 == t && !n[$2]++ { print $2 }' "$tmp/rows")
    panels=$(echo "$shapes" | wc -w)
    {
        echo "set terminal svg size $((panels * 420 + 20)),440 font 'sans-serif,12' background 'white'"
        echo "set output '$dir/$phase.svg'"
        echo "set multiplot layout 1,$panels title 'Attention $phase, $most threads'"
        echo "set logscale xy; set grid; set key top left font ',10' samplen 3; set xlabel 'keys'; set ylabel 'ms'"
        echo "set xtics ('512' 512, '1k' 1024, '4k' 4096, '8k' 8192, '32k' 32768, '128k' 131072); set format y '%g'"
        for s in $shapes; do
            awk -v p=$phase -v t="$most" -v s="$s" '$1 == p && $2 == s && $6 == t' "$tmp/rows" >"$tmp/panel"
            series=$(awk '!n[$3]++ { print $3 }' "$tmp/panel")
            plot=; i=0
            for l in $series; do
                i=$((i + 1)); f=$tmp/$phase-$s-$i
                # A later row of the same place replaces an earlier one.
                awk -v l="$l" '$3 == l { t[$4] = $5 } END { for (n in t) print n, t[n] }' "$tmp/panel" | sort -n >"$f"
                # Full attention solid, sparse dashed; a colour for each implementation and type.
                case $l in *sparse*) dash=2;; *) dash=1;; esac
                case $l in ssa*f32) c=1;; ssa*bf16) c=2;; ssa*) c=3;; *f32) c=4;; *bf16) c=7;; *) c=8;; esac
                title=$(echo "$l" | tr , ' ')
                plot="$plot${plot:+, }'$f' with linespoints lw 2 pt 7 ps 0.5 lc $c dt $dash title '$title'"
            done
            echo "set title '$s'"
            echo "plot $plot"
        done
        echo "unset multiplot"
    } >"$tmp/gp"
    gnuplot "$tmp/gp" && echo "$dir/$phase.svg"
done
