#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A media server: clips of several sizes are encoded, decoded, scaled, and have thumbnails made.
. ./bench.sh
cd /tmp
export LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/blas:/usr/lib/x86_64-linux-gnu/lapack:/usr/lib/x86_64-linux-gnu/pulseaudio
run() { ffmpeg -nostdin -loglevel error -y -threads 1 "$@" || exit 1; }
size() { # a draw of the frame's size, in $size
    draw 4
    size=$(echo 160x120 320x180 480x270 640x360 | cut -d' ' -f$((drawn + 1)))
}
phase source
for name in 320x180 640x360; do
    run -f lavfi -i testsrc2=size=$name:rate=12 -t 1.5 -c:v mpeg4 -q:v 5 clip$name.avi
done
while :; do
    draw 7
    size
    case $drawn in
    0) phase mpeg4; run -f lavfi -i testsrc2=size=$size:rate=12 -t 2 -c:v mpeg4 -q:v 6 out.avi ;;
    1) phase h264; run -f lavfi -i testsrc2=size=$size:rate=8 -t 1 -c:v libx264 -preset ultrafast out.mkv ;;
    2 | 3) phase decode; run -i clip640x360.avi -f null - ;;
    4) phase scale; run -i clip320x180.avi -vf scale=$(echo $size | tr x :) -c:v mjpeg -q:v 5 out.mjpeg ;;
    5) phase sound; run -f lavfi -i sine=frequency=330:duration=6 -c:a aac out.m4a ;;
    6) phase thumbnail; run -ss 0.8 -i clip640x360.avi -frames:v 1 -vf scale=96:-1 out.jpg ;;
    esac
    rest
done
