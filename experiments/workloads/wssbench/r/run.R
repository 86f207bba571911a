# SPDX-License-Identifier: Apache-2.0
# A statistician's session: data are simulated, looked at in several ways, kept for a while.
set.seed(as.integer(Sys.getenv("seed")))
phase <- function(name) system2("pmlguest", c("phase", name))
rest <- function() {
  phase("idle")
  Sys.sleep(0.3 + 6 * runif(1)^2)
}
simulate <- function(n) {
  phase("simulate")
  x <- matrix(rnorm(n * 8), n)
  data.frame(x, y = drop(x %*% 1:8) + rnorm(n), group = sample(letters, n, TRUE))
}
fit <- function(d) summary(lm(y ~ ., d))$r.squared
cluster <- function(d) kmeans(d[, 1:8], sample(3:8, 1), iter.max = 15)$size
sorted <- function(d) d[order(d$group, -d$y), ]
bootstrap <- function(d) replicate(30, median(sample(d$y, replace = TRUE)))
aggregated <- function(d) aggregate(d[, 1:9], list(d$group), mean)
kept <- list(simulate(10000))
repeat {
  d <- kept[[sample(length(kept), 1)]]
  work <- sample(c("fit", "cluster", "sort", "bootstrap", "aggregate", "new", "forget"), 1)
  if (work == "new") {
    kept <- c(kept, list(simulate(round(3000 + 60000 * runif(1)^2))))
  } else {
    phase(work)
    switch(work, fit = fit(d), cluster = cluster(d), sort = sorted(d), bootstrap = bootstrap(d),
           aggregate = aggregated(d), forget = { kept <- tail(kept, 2); gc() })
  }
  if (runif(1) < 0.6) rest()
}
