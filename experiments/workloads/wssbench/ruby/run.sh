#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec ruby3.1 run.rb
