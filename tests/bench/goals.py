# SPDX-License-Identifier: Apache-2.0
"""What is aimed at: bounds of the ratios. A bench says whether they were met, and never fails."""

# key: what it is, ">=" or "<=", the bound
GOALS = {
    "distinct_vs_polars": ("distinct pages per window: times as fast as polars", ">=", 6),
    "distinct_vs_duckdb": ("as DuckDB", ">=", 10),
    "distinct_vs_pandas": ("as pandas", ">=", 25),
    "distinct_vs_numpy_pass": ("of the speed of a numpy pass over the columns", ">=", 0.2),
    "all_T_vs_one_T": ("W(t, T) for 40 T: time over that of one T", "<=", 2),
    "mrc_exact_vs_libcachesim_one_size": ("exact curve, as libCacheSim at one size", ">=", 1),
    "mrc_exact_vs_libcachesim_one_size_million_pages": ("... a million pages", ">=", 3),
    "mrc_exact_vs_classical_tree": ("exact curve, as a classical tree", ">=", 5),
    "shards_vs_exact": ("SHARDS at 1 %, as the exact curve", ">=", 30),
    "shards_vs_exact_million_pages": ("... a million pages", ">=", 30),
    "shards_mae": ("its mean absolute error, the worst bundled trace", "<=", 0.005),
    "shards_mae_min_pages": ("... that of 1 % but no less than 8,192 pages", "<=", 0.005),
    "shards_mae_fixed_size": ("that of SHARDS with 8,192 pages", "<=", 0.005),
    "store_bytes_per_entry": ("bytes per entry, the worst bundled log", "<=", 2),
    "store_read_millions": ("million entries read per second", ">=", 50),
    "store_write_millions": ("million entries written per second", ">=", 30),
    "memory_MiB": ("peak memory of the largest trace, MiB", "<=", 2048),
    "ring_to_spool_millions": ("million entries a second, ring to spool", ">=", 20),
    "spool_to_parquet_millions": ("million entries a second, spool to Parquet", ">=", 30),
    "collection_MiB": ("peak memory of either, MiB", "<=", 300),
    "collection_bytes_per_entry": ("bytes per entry of what was collected", "<=", 2),
    "bpf_ring_to_events_millions": ("million entries a second, rings of BPF to arrays", ">=", 10),
    "pages_to_events_millions": ("million events a second, pages of ftrace to arrays", ">=", 10),
    "kvm_spool_to_parquet_millions": ("million entries a second, KVM's spool to Parquet", ">=", 5),
    "kvm_ingest_MiB": ("its peak memory, MiB", "<=", 400),
    "explorer_update_ms": ("explorer: a widget moves, 10^7 entries, ms", "<=", 100),
    "help_s": ("pmlkit --help, s", "<=", 0.3),
    "import_s": ("import pmlkit, s", "<=", 0.5),
    "info_vs_imports": ("pmlkit info redis: CPU over `import pandas, pyarrow`", "<=", 1.5),
    "wss_vs_imports": ("pmlkit wss redis: the same", "<=", 1.5),
    "mrc_vs_imports": ("pmlkit mrc redis: the same", "<=", 1.5),
    "advise_cpu_s": ("pmlkit advise redis, CPU s", "<=", 10),
    "demo_cpu_s": ("make demo, CPU s", "<=", 60),
    "suite_cpu_s": ("make test without the lab, CPU s", "<=", 600),
}


def verdicts(ratios):
    """Return a row per goal: what, the bound, what was measured (None: not now), and if met."""
    return [
        {
            "goal": key,
            "what": what,
            "bound": f"{sign} {bound:g}",
            "measured": ratios.get(key),
            "met": _met(ratios.get(key), sign, bound),
        }
        for key, (what, sign, bound) in GOALS.items()
    ]


def _met(value, sign, bound):
    if value is None:
        return ""
    return "yes" if (value >= bound if sign == ">=" else value <= bound) else "no"
