#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
exec node --max-old-space-size=160 service.js
