# Purpose: print the comparison: one table of all tools and steps, then our ratios to the best of them with their goals.
# Trade-off: in every round and step we are held against whichever tool was best in that very round, which is harder
#   than against one tool's median.
# If the assumption fails: a tool that is missing (rustic) makes the goal easier; the line "held against" names them.

from lib import report

OURS, PYTHON = "blkdelta", "python differ"


def show(runs, names, steps, zstd_bytes):
    show_table(runs, names, steps)
    for state, size in zstd_bytes.items():
        print(
            f"zstd -1 of the changed 8 KiB grains v0 -> {state}, end to end: "
            f"{report.mib(size['raw'], 1)} MiB -> {report.mib(size['compressed'], 2)} MiB"
        )
    if OURS in names:
        show_ratios(runs, names, zstd_bytes)


def show_table(runs, names, steps):
    rows = []
    for step in steps:
        for name in names:
            of_step = runs[name, step]
            rows.append(
                [
                    f"{step}: {name}",
                    report.spread([run["wall"] for run in of_step]),
                    report.spread([run["sync"] for run in of_step]),
                    report.spread([run["cpu"] for run in of_step]),
                    report.spread([run["peak"] / report.MIB for run in of_step], 0),
                    report.spread([run["added"] / report.MIB for run in of_step], 1),
                    report.spread([run["local"] / report.MIB for run in of_step], 0),
                    report.spread([run["written"] / report.MIB for run in of_step], 0),
                ]
            )
    head = ["median (min-max)", "wall s", "then sync s", "CPU s", "peak MiB", "added MiB", "local MiB", "written MiB"]
    report.table(head, rows)
    print(
        "added: growth of the repository by the lengths of its files; local: cache and state beside it, on disk; written:\n"
        "what the process sent to storage or the page cache; then sync: writing what it left in the page cache at its end;\n"
        "every restored volume was compared byte by byte\n"
    )


def show_ratios(runs, names, zstd_bytes):
    peers = [name for name in names if name not in (OURS, PYTHON)]
    if peers:
        print(f"\nratios, round by round, held against the best of: {', '.join(peers)}")
        show_against_peers(runs, peers)
    added_v1 = [run["added"] for run in runs[OURS, "changed v1"]]
    report.goal("changed v1, bytes / zstd -1 of the grains", [size / zstd_bytes["v1"]["compressed"] for size in added_v1], 1.1)
    added_s1 = [run["added"] for run in runs[OURS, "changed s1"]]
    report.info("changed s1, bytes / zstd -1 of the grains", [size / zstd_bytes["s1"]["compressed"] for size in added_s1])

    if PYTHON in names:
        print("\nratios to the plain Python differ, for information")
        for step in ("full v0", "unchanged v0", "changed v1", "restore v1", "changed s1"):
            for key in ("wall", "cpu"):
                mine, others = column(runs, OURS, step, key), column(runs, PYTHON, step, key)
                report.info(f"{step}, {key}", report.ratios(mine, others))


def show_against_peers(runs, peers):
    def to_best(step, key):
        best = [min(of_round) for of_round in zip(*(column(runs, name, step, key) for name in peers))]
        return report.ratios(column(runs, OURS, step, key), best)

    report.goal("full v0, wall / fastest", to_best("full v0", "wall"), 0.6)
    report.goal("full v0, bytes / smallest", to_best("full v0", "added"), 1.0)
    report.goal("changed v1, wall / fastest", to_best("changed v1", "wall"), 0.5)
    report.goal("changed v1, bytes / smallest", to_best("changed v1", "added"), 1.0)
    report.goal("changed s1, bytes / smallest", to_best("changed s1", "added"), 0.25)
    report.info("unchanged v0, wall / fastest", to_best("unchanged v0", "wall"))
    report.info("changed s1, wall / fastest", to_best("changed s1", "wall"))
    report.info("restore v1, wall / fastest", to_best("restore v1", "wall"))


def column(runs, name, step, key):
    return [run[key] for run in runs[name, step]]
