#!/usr/bin/env python3
"""mutate.py - breaks ssa.h in small ways, one at a time, and counts how many of the breaks the tests notice.

Each mutant is ssa.h with one small edit in the body of a function: a relation, a sign, a constant, a condition, an
index, a statement that is gone. Only the implementation object is compiled again, and a group with a private copy of
the library when it is its turn; they are linked with the tests' other objects. The groups of tests run one after
another, each in a process of its own, until one fails, crashes or hangs: brief runs (`test -b`) and whole ones, in the
order of kills per second so far among mutants of that section.

A survivor has passed every group whole (with --brief: brief; --again judges those whole). A mutant whose object has
the bytes of the original is no mutant, nor is one that does not compile: another is drawn instead. The same seed draws
the same mutants. Prefetching is left alone: no result depends on it. Survivors need a human: some are equivalent in
ways that no compiler sees (a choice between two right ways, a slower way, a bound that is only generous), the others
are what the tests miss.

Writes build/mutants/survivors.txt and build/mutants/all.tsv; the last line of the output counts.
"""
import argparse
import concurrent.futures
import os
import random
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = "build/mutants"
# All but lm, which is slow, and harness, which does not call ssa.h.
GROUPS = ("errors pool table guard golden loss checked isa halves select sparse attention invariants unit diag cache "
          "terms recipes hosts")
SECTIONS = "7,8,9,11,12,13,15"

# ---- the source ------------------------------------------------------------------------------------------------------


def blank(text):
    return re.sub(r"[^\n]", " ", text)


def mask(source):
    """The source with comments, strings and preprocessor lines turned to blanks; same length, same lines."""
    token = re.compile(r"/\*.*?\*/|//[^\n]*|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'", re.S)
    source = token.sub(lambda m: blank(m.group()), source)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: blank(m.group()), source, flags=re.M)


def bodies(masked):
    """(first, last, name) of every function body: a brace at the outermost level that follows a parenthesis."""
    depth, start, before, name, at = 0, None, "", "", 0
    for m in re.finditer(r"[{}()\w;]+?", masked):
        c = m.group()
        if c == "{":
            if depth == 0 and before == ")":
                start = m.end()
                # SSA__FN(name)(..) is spelt with parentheses: the last name that opens a list of parameters
                names = re.findall(r"SSA__FN\((\w+)\)\s*\(|(\w+)\s*\(", masked[at:m.start()])
                name = next((a or b for a, b in names if a or b != "SSA__FN"), "?")
            depth += 1
        elif c == "}":
            depth -= 1
            if depth == 0:
                if start is not None:
                    yield start, m.start(), name
                start, at = None, m.end()
        elif c == ";" and depth == 0:
            at = m.end()
        before = c


def sections(source):
    """The section of every line, counted from 1."""
    now, box, result = 0, False, [0]
    for line in source.split("\n"):
        m = re.match(r" \* +(\d+)  [A-Z]", line)
        if box and m:
            now = int(m.group(1))
        box = line.startswith("/* =====")
        result.append(now)
    return result


def compiled_lines(command, source):
    """The lines of ssa.h that come out of the preprocessor."""
    text = run(re.sub(r" -c -o \S+", " -E", command)).stdout
    result, at, ours = set(), 0, False
    for line in text.split("\n"):
        m = re.match(r'# (\d+) "([^"]*)"', line)
        if m:
            at, ours = int(m.group(1)), os.path.basename(m.group(2)) == "ssa.h"
            continue
        if ours and line.strip():
            result.add(at)
        at += 1
    return result


# ---- operators -------------------------------------------------------------------------------------------------------
WORD = {"ssa__min": ["ssa__max"], "ssa__max": ["ssa__min"], "SSA_F16": ["SSA_BF16"], "SSA_BF16": ["SSA_F16"],
        "dk": ["dv"], "dv": ["dk"], "head_dim": ["value_dim"], "value_dim": ["head_dim"],
        "token_stride": ["head_stride"], "head_stride": ["token_stride"], "n_q": ["n_kv"], "n_kv": ["n_q"],
        "n_heads": ["n_kv_heads"], "n_kv_heads": ["n_heads"], "lo": ["hi"], "hi": ["lo"],
        "break": ["continue"], "continue": ["break"]}
VECTOR = {"add": "sub", "sub": "add", "fma": "fms", "fms": "fma", "fmadd": "fmsub", "fmsub": "fmadd", "and": "or",
          "or": "and", "unpacklo": "unpackhi", "unpackhi": "unpacklo"}
RELATION = {"<": ["<=", ">="], "<=": ["<", ">"], ">": [">=", "<="], ">=": [">", "<"], "==": ["!="], "!=": ["=="]}
SPACED = {"+": ["-"], "-": ["+"], "*": ["+"], "/": ["*"], "%": ["/"], "&&": ["||"], "||": ["&&"], "&": ["|"],
          "|": ["&"], "<<": [">>"], ">>": ["<<"], "+=": ["-=", "="], "-=": ["+="], "|=": ["&=", "="], "&=": ["|="]}
SPACED.update(RELATION)
TYPE = re.compile(r"\s*(?:static\s+|const\s+)*(?:struct|union|enum|unsigned char|char|int|float|double|size_t|"
                  r"u?int\d+_t|ssa_\w+|__m\w+|SSA__V\w*)\s+\**\w")
DECLARES = re.compile(TYPE.pattern + r"\w*(?:\[[^=]*\])?(?:,[^=()]*)?;\s*$")
SKIP = re.compile(r"SSA_ASSERT|SSA__PREFETCH|ahead|fetch|SSA__UNROLL|SSA__DIAG|\bstruct \{|\bcase\b|\bassert\b")


def matching(text, at):
    """The index of the parenthesis that closes the one at `at`, on the same line; -1: none."""
    depth = 0
    for i in range(at, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    return -1


def arguments(text, at):
    """(start, end) of each argument of the call whose parenthesis is at `at`."""
    end, depth, start, found = matching(text, at), 0, at + 1, []
    for i in range(at + 1, end):
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(text[i], 0)
        if text[i] == "," and depth == 0:
            found.append((start, i))
            start = i + 1
    return found + [(start, end)] if end > 0 else []


def edits(line):
    """Every small edit of a masked line of code: (start, end, new text, operator)."""
    if SKIP.search(line) or DECLARES.match(line):
        return
    for m in re.finditer(r"(?<= )([-+*/%&|<>=!]{1,2})(?= )", line):
        for new in SPACED.get(m.group(), []):
            yield m.start(), m.end(), new, "operator"
    for m in re.finditer(r"(?<![\w.>])(\d+)(?![\w.])", line):
        n = int(m.group())
        if line[m.end():m.end() + 1] == "]" and TYPE.match(line):     # the length of an array
            continue
        for new in {n + 1, max(n - 1, 0)} - {n}:
            yield m.start(), m.end(), str(new), "constant"
    for m in re.finditer(r"(?<![\w.])(\d+\.\d*)f\b", line):
        yield m.start(), m.end(), "1.0f" if float(m.group(1)) == 0 else "0.0f", "constant"
        if float(m.group(1)) != 0:
            yield m.start(), m.end(), "(%s * 1.01f)" % m.group(), "constant"
    for m in re.finditer(r"\b\w+\b", line):
        for new in WORD.get(m.group(), []):
            yield m.start(), m.end(), new, "name"
    for m in re.finditer(r"(?:(?<=SSA__FN\()(\w+)(?=\))|(?<=_mm256_)([a-z]+)(?=_)|(?<=_mm512_)([a-z]+)(?=_))", line):
        if m.group() in VECTOR:
            yield m.start(), m.end(), VECTOR[m.group()], "vector"
    for m in re.finditer(r"(?:SSA__FN\((?:max|sub|div)\)|_mm\w*_(?:max|min|sub)(?:_\w+)?)(?=\()", line):
        args = arguments(line, m.end())
        if len(args) == 2:
            (a, b), (c, d) = args
            yield a, d, line[c:d].strip() + ", " + line[a:b].strip(), "swap"
    for m in re.finditer(r"\[((?:\w|->|\.)+)\]", line):
        if not m.group(1).isdigit():
            for new in ("%s + 1", "%s - 1"):
                yield m.start(1), m.end(1), new % m.group(1), "index"
    for m in re.finditer(r"(?<![\w)])!(?=[\w(])", line):
        yield m.start(), m.end(), "", "not"
    for m in re.finditer(r"\b(if|while) \(", line):
        end = matching(line, m.end() - 1)
        if end > 0:
            for new in ("0", "1") if m.group(1) == "if" else ("0",):
                yield m.end(), end, new, "condition"
    for m in re.finditer(r" (\?) ", line):       # the two ways of a choice, where its condition can be told
        yield m.start(1), m.end(1), "&& 0 ?", "condition"
    for m in re.finditer(r"(?:(?<=[;{)] )|^ +)((?:\w|->|[.*\[\]() +])+? [-+*|&^]?= [^;{}]*|[\w>.-]+\+\+|"
                         r"\w+(?:\(\w+\))?\([^;{}]*\));", line):
        text = m.group(1)
        if (text.count("(") == text.count(")") and not re.match(r"(if|for|while|return|else|const|int|float|double|"
                r"size_t|u?int\d+_t|ssa_\w+ \w|ssa__\w+ [*\w]|__m\w+|SSA__V |unsigned|static)\b", text)
                and not re.match(r"\w+ \**\w+(\[.*\])? =", text)):
            yield m.start(1), m.end(1), "", "deleted"


class Mutant:
    def __init__(self, line, section, name, start, end, new, kind, before):
        self.line, self.section, self.name, self.kind, self.before = line, section, name, kind, before
        self.after = before[:start] + new + before[end:]
        self.result, self.by, self.seconds = "", "", 0.0


def candidates(source, compiled, wanted, missing):
    """The lines that can be broken, each with all its edits."""
    masked = mask(source)
    room = list(blank(masked))
    owner = {}
    for first, last, name in bodies(masked):
        if any(re.search(r"(^|_)%s_" % level, name) for level in missing):
            continue
        room[first:last] = masked[first:last]
        for n in range(masked.count("\n", 0, first) + 1, masked.count("\n", 0, last) + 2):
            owner[n] = name
    where, lines = sections(source), source.split("\n")
    for n, text in enumerate("".join(room).split("\n"), 1):
        if n not in compiled or where[n] not in wanted or (where[n] == 9 and "amx" in missing):
            continue
        found = list(dict.fromkeys(edits(text)))
        if found:
            yield [Mutant(n, where[n], owner[n], *e, lines[n - 1]) for e in found]


def again(pool, path):
    """The survivors that an earlier run's all.tsv lists, of the same ssa.h."""
    with open(path, encoding="utf-8") as f:
        rows = [r.rstrip("\n").split("\t") for r in f]
    wanted = {(int(r[2]), r[7], r[8]) for r in rows if r[0] == "survived"}
    return [m for p in pool for m in p if (m.line, m.before.strip(), m.after.strip()) in wanted]


def draw(pool, seed):
    """An endless enough stream: a line at random, one of its edits at random; every line once before any twice."""
    r = random.Random(seed)
    pool = [list(p) for p in pool]
    while pool:
        r.shuffle(pool)
        for p in pool:
            yield p.pop(r.randrange(len(p)))
        pool = [p for p in pool if p]


# ---- building and running --------------------------------------------------------------------------------------------


def run(command, limit=None, env=None):
    return subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", timeout=limit, env=env, cwd=ROOT, check=False)


def must(command):
    done = run(command)
    if done.returncode:
        sys.exit("mutate: %s\n%s" % (command, done.stdout[-3000:]))
    return done.stdout


class Tests:
    def __init__(self, args):
        self.groups, self.jobs, self.brief = args.groups.split(), args.jobs, args.brief
        self.env = dict(os.environ, TEST_STOP="1", OMP_WAIT_POLICY="passive")
        self.env.setdefault("OMP_NUM_THREADS", "2")
        make = "make BUILD=%s/base CPPFLAGS=%s IMPL_CFLAGS=%s " % (OUT, shlex.quote(args.cppflags),
                                                                  shlex.quote(args.flags))
        target, impl = OUT + "/base/test", OUT + "/base/tests/ssa_impl.o"
        must("%s -s -j %d %s" % (make, args.jobs, target))
        os.rename(os.path.join(ROOT, impl), os.path.join(ROOT, impl + ".kept"))
        plan = must("%s -n %s" % (make, target)).split("\n")
        os.rename(os.path.join(ROOT, impl + ".kept"), os.path.join(ROOT, impl))
        self.compile = next(c for c in plan if c.endswith("tests/ssa_impl.c"))
        self.link = next(c for c in plan if " -o %s " % target in c)
        self.private = [g for g in self.groups if self.has_copy("tests/test_%s.c" % g)]
        self.target, self.impl = target, impl
        with open(os.path.join(ROOT, impl), "rb") as f:
            self.bytes = f.read()
        self.seconds, self.spent, self.kills = {}, {}, {}   # of a step; of a section's steps

    @staticmethod
    def has_copy(path):
        path = os.path.join(ROOT, path)
        if not os.path.exists(path):
            return False
        with open(path, encoding="utf-8") as f:
            return "#define SSA_IMPLEMENTATION" in f.read()

    def build(self, name, place):
        """The object of tests/NAME.c with the ssa.h of the place; what went wrong. All are compiled as quickly."""
        return run(self.compile.replace(self.impl, "%s/tests/%s.o" % (place, name))
                   .replace(" tests/ssa_impl.c", " %s/tests/%s.c" % (place, name)))

    def program(self, place, *names):
        """The tests with these objects of the place."""
        command = self.link.replace(" -o " + self.target, " -o %s/test" % place)
        for name in names:
            command = command.replace("%s/base/tests/%s.o" % (OUT, name), "%s/tests/%s.o" % (place, name))
        must(command)

    def group(self, program, name, limit, left=float("inf")):
        """What stopped the group, or nothing, and its output. The limit is CPU time, for what else runs is no matter;
        a deadlock takes none, and is met ten times later."""
        command = "ulimit -c 0; ulimit -v 33554432; ulimit -t %d; exec timeout -s KILL %d %s %s" % (
            limit, min(10 * limit, left + 1), program, name)
        done = run(command, env=self.env)
        failed = re.search(r"FAIL (\S+)", done.stdout)
        return ("" if done.returncode == 0 else
                failed.group(1) if failed else "hang" if done.returncode in (137, -9) else "crash"), done.stdout

    def baseline(self):
        """Every group once, as many at a time as later; returns the levels that were not run. A step is a group, or a
        brief run of one ("-b GROUP") that takes less than half of its time."""
        def one(step):
            start = time.monotonic()
            why, text = self.group(self.target, step, 900)
            return step, time.monotonic() - start, why, text
        texts, whole = "", [] if self.brief else self.groups
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            for step, seconds, why, text in pool.map(one, whole + ["-b " + g for g in self.groups]):
                if why:
                    sys.exit("mutate: group %s fails without any mutant:\n%s" % (step, text[-2000:]))
                if seconds < 0.5 * self.seconds.get(step.split()[-1], float("inf")):
                    self.seconds[step] = seconds
                texts += text
        return re.findall(r"SKIP (\w+): this build or CPU lacks the level", texts)

    def steps(self, section):
        """What to run of a mutant's tests, the next one the best by the kills per second so far; before any, by the
        seconds alone. A brief run of a group that has passed whole says no more."""
        left = set(self.seconds)
        while left:
            step = max(sorted(left), key=lambda s: (1 + self.kills.get((section, s), 0)) /
                       (self.seconds[s] + self.spent.get((section, s), 0)))
            left -= {step, "-b " + step}
            yield step

    def judge(self, m, place, source, deadline):
        lines = source.split("\n")
        lines[m.line - 1] = m.after
        with open(os.path.join(ROOT, place, "ssa.h"), "w", encoding="ascii") as f:
            f.write("\n".join(lines))
        if self.build("ssa_impl", place).returncode:
            return "invalid", ""
        with open(os.path.join(ROOT, place, "tests/ssa_impl.o"), "rb") as f:
            if f.read() == self.bytes:
                return "equivalent", ""
        self.program(place, "ssa_impl")
        for step in self.steps(m.section):
            start, key, copy = time.monotonic(), (m.section, step), "test_" + step.split()[-1]
            if copy[5:] in self.private:
                if self.build(copy, place).returncode:
                    return "error", "%s does not compile" % copy
                self.program(place, "ssa_impl", copy)
            why, _ = self.group(place + "/test", step, 8 + 4 * self.seconds[step], max(deadline - start, 0))
            if time.monotonic() > deadline and why in ("", "hang"):
                return "unfinished", ""
            self.spent[key] = self.spent.get(key, 0) + time.monotonic() - start
            if why:
                self.kills[key] = self.kills.get(key, 0) + 1
                return "killed", "%s: %s" % (step, why)
        return "survived", ""


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("--count", type=int, default=300, help="mutants to judge (300)")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    p.add_argument("--sections", default=SECTIONS, help="of ssa.h, commas between (%s)" % SECTIONS)
    p.add_argument("--groups", default=GROUPS, help="of the tests (%s)" % GROUPS)
    p.add_argument("--cppflags", default="", help='"-include tests/amx_emulated.h" runs level amx by emulation')
    p.add_argument("--flags", default="-Og -w", help="of the implementation (-Og -w: the quickest to compile)")
    p.add_argument("--brief", action="store_true", help="brief runs of the groups alone")
    p.add_argument("--again", metavar="TSV", help="no new ones: the survivors in this copy of an earlier all.tsv")
    p.add_argument("--time-limit", type=float, default=0, help="seconds after which no more are judged (0: none)")
    p.add_argument("--list", action="store_true", help="print the mutants that would be drawn; build nothing else")
    args = p.parse_args()
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):  # `make mutants` must not reach into this make
        os.environ.pop(name, None)
    began = time.monotonic()
    os.makedirs(os.path.join(ROOT, OUT), exist_ok=True)
    with open(os.path.join(ROOT, "ssa.h"), encoding="ascii") as f:
        source = f.read()

    print("building", flush=True)
    tests = Tests(args)
    missing = [] if args.list else tests.baseline()
    wanted = {int(s) for s in args.sections.split(",")}
    pool = list(candidates(source, compiled_lines(tests.compile, source), wanted, missing))
    print("%d edits of %d lines; levels that are not run: %s; groups: %s" % (
        sum(map(len, pool)), len(pool), " ".join(sorted(set(missing))) or "none",
        ", ".join("%s %.1f s" % x for x in tests.seconds.items())), flush=True)
    stream = iter(again(pool, args.again)) if args.again else draw(pool, args.seed)
    if args.list:
        for m, _ in zip(stream, range(args.count)):
            print("%d\t%s\t%s\n\t- %s\n\t+ %s" % (m.line, m.name, m.kind, m.before.strip(), m.after.strip()))
        return 0

    begun = time.monotonic()
    deadline = began + args.time_limit if args.time_limit else float("inf")
    lock, done = threading.Lock(), []
    state = {"judged": 0, "running": 0, "stop": False}
    changed = threading.Condition(lock)

    def worker(place):
        shutil.rmtree(os.path.join(ROOT, place), ignore_errors=True)
        shutil.copytree(os.path.join(ROOT, "tests"), os.path.join(ROOT, place, "tests"))
        while True:
            with changed:           # as many begin as could be wanted: what is drawn does not depend on the order
                while state["judged"] < args.count <= state["judged"] + state["running"]:
                    changed.wait()
                over = state["stop"] or state["judged"] >= args.count or time.monotonic() > deadline
                m = None if over else next(stream, None)
                if m is None:
                    return
                state["running"] += 1
            start = time.monotonic()
            try:
                m.result, m.by = tests.judge(m, place, source, deadline)
            except Exception as e:      # an error of this script's own is no verdict
                m.result, m.by = "error", repr(e)
            m.seconds = time.monotonic() - start
            with changed:
                state["running"] -= 1
                state["judged"] += m.result in ("killed", "survived")
                done.append(m)
                changed.notify_all()
                print("%-10s ssa.h:%d, %s, %.1f s  %s" % (m.result, m.line, m.name, m.seconds, m.by), flush=True)

    threads = [threading.Thread(target=worker, args=("%s/w%d" % (OUT, i),)) for i in range(max(args.jobs, 1))]
    for t in threads:
        t.start()
    try:
        for t in threads:
            t.join()
    except KeyboardInterrupt:           # what was judged so far still counts
        print("stopping", flush=True)
        state["stop"] = True
        for t in threads:
            t.join()
    return report(done, time.monotonic() - begun)


def report(done, seconds):
    done.sort(key=lambda m: m.line)
    with open(os.path.join(ROOT, OUT, "all.tsv"), "w", encoding="utf-8") as f:
        f.write("result\tseconds\tline\tsection\tfunction\toperator\tby\tbefore\tafter\n")
        for m in done:
            f.write("%s\t%.1f\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n" % (m.result, m.seconds, m.line, m.section, m.name, m.kind,
                                                               m.by, m.before.strip(), m.after.strip()))
    killed, survived = ([m for m in done if m.result == r] for r in ("killed", "survived"))
    table = "".join("ssa.h:%d  section %d, %s, %s\n  - %s\n  + %s\n" % (
        m.line, m.section, m.name, m.kind, m.before.strip(), m.after.strip()) for m in survived)
    with open(os.path.join(ROOT, OUT, "survivors.txt"), "w", encoding="utf-8") as f:
        f.write(table)
    print("\nsurvivors, in %s/survivors.txt:\n%s" % (OUT, table or "none\n"))
    for title, key in (("section", lambda m: m.section), ("operator", lambda m: m.kind)):
        kinds = sorted({key(m) for m in killed + survived}, key=str)
        print("killed by %s: %s" % (title, ", ".join("%s %d/%d" % (
            k, sum(key(m) == k for m in killed), sum(key(m) == k for m in killed + survived)) for k in kinds)))
    groups = [m.by.split(":")[0] for m in killed]
    print("killed by step: %s" % ", ".join("%s %d" % (g, groups.count(g)) for g in dict.fromkeys(groups)))
    if killed:
        print("seconds: %.0f in all; a killed one, median %.1f" % (
            seconds, statistics.median(m.seconds for m in killed)))
    other = {r: sum(m.result == r for m in done) for r in ("equivalent", "invalid", "unfinished", "error")}
    print("%d/%d killed; not counted: %s" % (len(killed), len(killed) + len(survived), ", ".join(
        "%d %s" % (n, r) for r, n in other.items())))
    return 1 if other["error"] or not killed else 0


if __name__ == "__main__":
    sys.exit(main())
