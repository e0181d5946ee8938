# Purpose: print what the scans did to the database: one table of ratios to `alone` for each scheduler, then the goals.
# Trade-off: a ratio is taken against the `alone` run just before it. The latency that counts includes how late a
#   transaction started against its schedule, which is what users feel; the ratio without it stands beside it.
# If the assumption fails: the spread of alone against alone says how much of a ratio is the machine's mood. Where it
#   is above the goal it becomes the goal: then the run shows only that we are not worse than that mood.

from statistics import median

from lib import report

ALONE, DEFAULT = "alone", "default"
MOST_P99, LEAST_TRANSACTIONS = 1.10, 0.95
FIGURES = ["tps", "p50", "p95", "p99", "p99 without lag"]


def show(scheduler, runs):
    alone = [run for run in runs if run["variant"] == ALONE]
    show_alone(scheduler, alone)
    variants = list(dict.fromkeys(run["variant"] for run in runs if run["variant"] != ALONE))
    mood = [max(ratio, 1 / ratio) for ratio in neighbours(alone, "p99")]
    rows = []
    for name in variants:
        rows.append([name, *(report.spread(to_alone(runs, name, figure)) for figure in FIGURES), *scans(runs, name)])
    if mood:
        rows.append(["alone / alone before", *(report.spread(neighbours(alone, figure)) for figure in FIGURES), "", ""])
    if rows:
        report.table([f"{scheduler}: to alone", "tx/s", *FIGURES[1:], "scan MiB/s", "scans ended"], rows)
    if mood:
        print(f"alone against alone, p99, the greater over the lesser: {report.spread(mood, 3)}")
        if median(mood) > MOST_P99:
            print(f"the machine was too restless to show {MOST_P99:.2f}: the median of that spread takes its place")
    for name in variants:
        if stubborn := sum(run["stubborn"] for run in runs if run["variant"] == name):
            print(f"{name}: did not end on SIGTERM and was killed, {stubborn} times")
    if DEFAULT in variants:
        show_goals(scheduler, runs, variants, max([MOST_P99, *([median(mood)] if mood else [])]))
    print(flush=True)


def show_alone(scheduler, alone):
    first = alone[0]
    times = ", ".join(f"{name} {report.spread(column(alone, name))}" for name in ("p50", "p95", "p99"))
    print(f"\n{scheduler}: at most {first['greatest']:.0f} tx/s; all runs at a schedule of {first['rate']} tx/s")
    print(f"alone: {report.spread(column(alone, 'tps'), 1)} tx/s; {times} ms")
    read = report.spread([rate / report.MIB for rate in column(alone, "device_read")], 1)
    written = report.spread([rate / report.MIB for rate in column(alone, "device_written")], 1)
    print(f"alone, the database reads {read} and writes {written} MiB/s on the device")


def scans(runs, variant):
    """Its rate, and how many ended within the runs."""
    its = [run for run in runs if run["variant"] == variant]
    return report.spread([run["scan"] / report.MIB for run in its], 0), sum(run["scans"] for run in its)


def show_goals(scheduler, runs, variants, most_p99):
    report.goal(f"{scheduler}: default, p99 / alone", to_alone(runs, DEFAULT, "p99"), round(most_p99, 3))
    report.goal(f"{scheduler}: default, tx/s / alone", to_alone(runs, DEFAULT, "tps"), LEAST_TRANSACTIONS, at_least=True)
    for name in variants:
        if name != DEFAULT:
            failed = " BEYOND IT" if median(to_alone(runs, name, "p99")) > most_p99 else " within it"
            report.info(f"{scheduler}: {name}, p99 / alone,{failed}", to_alone(runs, name, "p99"))


def to_alone(runs, variant, figure):
    """Pair by pair."""
    its = [run for run in runs if run["variant"] == variant]
    alone = {run["pair"]: run for run in runs if run["variant"] == ALONE}
    return report.ratios(column(its, figure), [alone[run["pair"]][figure] for run in its])


def neighbours(alone, figure):
    """Every `alone` run against the one before it."""
    figures = column(alone, figure)
    return report.ratios(figures[1:], figures[:-1])


def column(runs, figure):
    return [run[figure] for run in runs]
