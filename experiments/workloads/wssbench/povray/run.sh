#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An artist's afternoon: scenes of few or of many objects are rendered at several sizes.
. ./bench.sh
cd /tmp
head_of() { # camera, light and ground
    echo 'global_settings { assumed_gamma 1.0 }
camera { location <0, 6, -14> look_at <0, 1, 0> }
light_source { <20, 30, -20> color rgb 1 }
plane { y, 0 pigment { checker color rgb 0.2 color rgb 0.8 } }'
}
spheres() { # NUMBER FINISH
    awk -v n="$1" -v s="$seed" -v finish="$2" '
        function draw(limit) { s = (s * 16807) % 2147483647; return s % 1000 / 1000 * limit }
        BEGIN { for (i = 0; i < n; i++) printf "sphere { <%.2f, %.2f, %.2f>, %.2f pigment { color rgb " \
            "<%.2f, %.2f, %.2f> } %s }\n", draw(16) - 8, draw(5), draw(16) - 8, draw(0.5) + 0.05,
            draw(1), draw(1), draw(1), finish }'
}
render() { # WIDTH
    povray +I/tmp/scene.pov +O/tmp/out.png +FN +W$1 +H$(($1 * 3 / 4)) -D -GA +WT1 >/dev/null 2>&1 || exit 1
}
while :; do
    draw 6
    scene=$drawn
    draw 4
    width=$((drawn * 30 + 60))
    phase write
    case $scene in
    0 | 1) { head_of; spheres 30 ''; } >scene.pov; phase few; render $width ;;
    2 | 3) draw 8; { head_of; spheres $((drawn * 800 + 400)) ''; } >scene.pov; phase many; render $width ;;
    4)
        { head_of; echo 'height_field { function 200, 200 { pattern { bumps scale 0.1 } }
            scale <14, 2, 14> translate <-7, 0.1, -7> pigment { color rgb <0.3, 0.6, 0.3> } }'; } >scene.pov
        phase field
        render $width
        ;;
    5) { head_of; spheres 60 'finish { reflection 0.4 }'; } >scene.pov; phase glass; render 60 ;;
    esac
    rest
done
