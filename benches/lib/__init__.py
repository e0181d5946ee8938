# Purpose: marks the folder with what all benchmark scripts share. Nothing is run on import.
# Trade-off: helpers only (running, machine, printing, our command); what a benchmark means stays in its own script.
# If wrong: a helper that knew about one benchmark would bend all the others without anybody seeing it.
