#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
export PATH=$PATH:/usr/lib/jvm/java-17-openjdk-amd64/bin
exec java -Xmx192m -cp /tmp/classes Service "$seed"
