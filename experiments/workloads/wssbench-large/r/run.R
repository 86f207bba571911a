# SPDX-License-Identifier: Apache-2.0
# Vectors of 64 MB fill half of a large guest; some are summed or scaled, few are looked at often.
set.seed(as.integer(Sys.getenv("seed")))
phase <- function(name) system2("pmlguest", c("phase", name))
rest <- function() {
  phase("idle")
  Sys.sleep(0.3 + 5 * runif(1)^2)
}
make <- function() {
  phase("make")
  rep(runif(1000), 8000)
}
kept <- lapply(1:8, function(i) make())
repeat {
  i <- sample(length(kept), 1)
  work <- sample(c("sum", "sum", "scale", "few", "few", "make", "forget"), 1)
  if (work == "make") {
    kept[[min(length(kept) + 1, 10)]] <- make()
  } else {
    phase(work)
    if (work == "sum") for (one in kept[seq_len(min(i, 4))]) sum(one)
    if (work == "scale") kept[[i]] <- kept[[i]] * 1.01
    if (work == "few") for (k in 1:40) mean(kept[[i]][1:100000])
    if (work == "forget" && length(kept) > 5) {
      kept[[i]] <- NULL
      gc()
    }
  }
  if (runif(1) < 0.7) rest()
}
