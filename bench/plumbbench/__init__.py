"""PlumbBench: faulty numbers that do not come from Plumb, and the grading of what plumb diagnose says of them."""
