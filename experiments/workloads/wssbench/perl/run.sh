#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec env LC_ALL=C PERL_HASH_SEED=0 perl run.pl
