#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/blas:/usr/lib/x86_64-linux-gnu/lapack:/usr/lib/x86_64-linux-gnu/octave/7.3.0:/usr/lib/x86_64-linux-gnu/pulseaudio
export XDG_CONFIG_HOME=/tmp XDG_DATA_HOME=/tmp
exec octave-cli --no-window-system --no-gui --norc --no-history --quiet session.m
