#!/usr/bin/env python3
"""Two builds of `recurve` beside each other: python3 benches/before_after.py OLD NEW [--device cpu] [--rounds 7]

Each round times the nine usual shapes for every cell with both programs, a shape after the other and the programs
in turn, so that a processor that changes its speed meanwhile changes it for both. The figures are medians of the
rounds' medians in ms; the ratio is the median of the rounds' ratios new / old. --csv keeps the rows in a file.
"""

import argparse
import json
import statistics
import subprocess

SHAPES = ["16,1,128,128", "64,1,128,128", "256,1,128,128", "1024,1,128,128", "128,1,256,256", "128,32,256,256",
          "100,16,512,512", "25,1,1024,1024", "64,64,64,64"]

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("old")
p.add_argument("new")
p.add_argument("--device", default="cpu")
p.add_argument("--cell", default="lstm,gru,rnn")
p.add_argument("--rounds", type=int, default=7)
p.add_argument("--seconds", default="0.15")
p.add_argument("--shapes", nargs="*", default=SHAPES)
p.add_argument("--csv")
a = p.parse_args()
times = {}
for n in range(a.rounds):
    for shape in a.shapes:
        # The order alternates, so that neither build always runs on a CPU heated by the other.
        for program in (a.old, a.new) if n % 2 == 0 else (a.new, a.old):
            arguments = [program, "bench", "--json", "--cell", a.cell, "--device", a.device, "--runs", "5",
                         "--seconds", a.seconds, "--shape", shape]
            rows = json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE).stdout)
            for r in rows["rows"] if isinstance(rows, dict) else rows:
                key = (r["cell"], *(r[k] for k in "TBIH"))
                name = "old" if program == a.old else "new"
                times.setdefault(key, {}).setdefault(name, []).append(r["ms_median"])
lines = ["cell,T,B,I,H,device,old_ms,new_ms,ratio"]
ratios = []
for key, t in times.items():
    old, new = statistics.median(t["old"]), statistics.median(t["new"])
    ratio = statistics.median(b / a for a, b in zip(t["old"], t["new"]))
    ratios.append(ratio)
    lines.append(",".join(map(str, key)) + f",{a.device},{old:.4f},{new:.4f},{ratio:.3f}")
print("\n".join(lines).replace(",", "\t"))
print(f"geometric mean of the ratios: {statistics.geometric_mean(ratios):.3f}")
if a.csv:
    with open(a.csv, "w") as f:
        f.write("\n".join(lines) + "\n")
