#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
export R_HOME=/usr/lib/R R_SHARE_DIR=/usr/share/R/share R_LIBS=/usr/lib/R/library
export LD_LIBRARY_PATH=/usr/lib/R/lib:/usr/lib/x86_64-linux-gnu/blas:/usr/lib/x86_64-linux-gnu/lapack
exec /usr/lib/R/bin/exec/R --no-save --no-restore --no-echo -f run.R
